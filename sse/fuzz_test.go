package sse

import (
	"slices"
	"strings"
	"testing"
)

// streams are where the fuzzers begin.
var streams = []string{
	"", "\n", "\r\n\r\n", "data: YHOO\ndata: +2\ndata: 10\n\n",
	": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
	"data\n\ndata\ndata\n\ndata:", "event: add\ndata: 73857293\n\nevent: remove\r\ndata: 2153\r\n\r\n",
	"\uFEFFdata:1\r\r\uFEFFid:2\r\ndata:x\r\n\r", "\xEF\xBB\ndata:\xEF\xBB\xBF\n\n", "\uFEFF\uFEFFdata:1\n\uFEFF\n\n",
	"id:\x00\n\nid:1\nid:a\x00\ndata\n\n:c\r\rid:\x00", "retry:10\nretry:x\nretry:99999999999999999999\n\nretry:9223372036854775807\nretry:",
	": ping - 2026\r\n\r\n:\n:\ndata: [DONE]\n\n", "data:a\rdata:b\ndata:c\r\n\r", "foo\nbar: 1\n\nevent\n\nid:7", "data:x\r", "id: 1\revent:\rdata: \r\r\n",
}

// FuzzDecoder holds the Decoder against the slow one, with the stream cut anywhere:
// cuts are the lengths of the pieces, over and over.
func FuzzDecoder(f *testing.F) {
	for i, s := range streams {
		f.Add(s, []byte{1}, uint16(0))
		f.Add(s, []byte{3, 0, 5}, uint16(4+i))
		f.Add(s+s, []byte{}, uint16(20))
		f.Add(strings.Repeat(s, 40), []byte{7, 200, 1}, uint16(900))
	}
	f.Fuzz(func(t *testing.T, stream string, cuts []byte, small uint16) {
		limit := noLimit
		if small > 0 {
			limit = int(small)
		}
		var pieces func() int
		if slices.ContainsFunc(cuts, func(n byte) bool { return n > 0 }) {
			i := -1
			pieces = func() int { i++; return int(cuts[i%len(cuts)]) }
		}
		got, gotLarge := decode(t, stream, limit, pieces)
		want, wantLarge := slowDecode(stream, limit)
		if !slices.Equal(got, want) || gotLarge != wantLarge {
			t.Errorf("%q cut %v, limit %d:\n got %+v, too large: %v\nwant %+v, too large: %v", stream, cuts, limit, got, gotLarge, want, wantLarge)
		}
	})
}

// FuzzRoundTrip writes what it has decoded as ssegate does, with ids and without, and
// asks the slow decoder whether it still means the same.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range streams {
		f.Add(s, "")
		f.Add(s, "Zm9v-1-2")
	}
	f.Fuzz(func(t *testing.T, stream, id string) {
		if !ValidID([]byte(id)) {
			return
		}
		var withID []byte
		if id != "" {
			withID = []byte(id)
		}
		for _, eol := range []EOL{LF, CRLF, CR} {
			var out []byte
			var want []string
			d := NewDecoder(noLimit)
			d.Feed([]byte(stream))
			for end := false; !end; {
				var ev Event
				ok, err := d.Next(&ev)
				if !ok && err == nil {
					ok, err = d.Finish(&ev)
					end = true
				}
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					continue
				}
				n := len(out)
				if ev.Comment && !ev.Partial {
					out = AppendCommentLines(out, &ev, eol)
				} else {
					out = AppendBlock(out, &ev, withID, eol)
				}
				same := withID == nil && !ev.Comment && ev.EOL == eol && !ev.Mixed && !strings.HasPrefix(string(ev.Raw), bom)
				if same && !strings.HasPrefix(string(out[n:]), string(ev.Raw)) {
					t.Errorf("%q is not what was received: %q", out[n:], ev.Raw)
				}
				s := saidOf(&ev)
				if withID != nil && !ev.Comment && (!ev.Partial || ev.HasData) {
					s.id, s.hasID = id, true
				}
				want = append(want, s.String())
			}
			events, _ := slowDecode(string(out), noLimit)
			var got []string
			for _, s := range events {
				got = append(got, s.String())
			}
			// What tells a client nothing may come and go.
			nothing := func(s string) bool { return s == "" || s == "comment" || s == "partial" || s == "comment partial" }
			got, want = slices.DeleteFunc(got, nothing), slices.DeleteFunc(want, nothing)
			if !slices.Equal(got, want) {
				t.Errorf("%q with id %q and line end %q became\n%q, which means\n\t%s\nand not\n\t%s",
					stream, id, eol, out, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
			}
			if rest := strings.ReplaceAll(string(out), eol.String(), ""); strings.ContainsAny(rest, "\r\n") {
				t.Errorf("%q with line end %q became %q", stream, eol, out)
			}
		}
	})
}

// FuzzMessage proves that nothing in a message can get out of its field.
func FuzzMessage(f *testing.F) {
	f.Add("", "", "", 0)
	f.Add("7", "n", "a\nb\rc\r\nd", 5)
	f.Add("a\nb", "", "\n\nid: 1\n\n", 0)
	f.Add("", "x\x00", "\uFEFF\r", -1)
	f.Add(" 7", " n", " data\r\n", 1)
	f.Fuzz(func(t *testing.T, id, name, data string, retry int) {
		for _, eol := range []EOL{LF, CRLF, CR} {
			out, err := AppendMessage(nil, &Message{ID: []byte(id), Name: name, Data: []byte(data), Retry: retry}, eol)
			if bad := strings.ContainsAny(id+name, "\r\n\x00"); bad || err != nil {
				if !bad || err == nil || len(out) > 0 {
					t.Fatalf("id %q, name %q: %q, %v", id, name, out, err)
				}
				return
			}
			want := said{id: id, hasID: true, name: name, hasData: true, retry: -1}
			want.data = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(data)
			if retry > 0 {
				want.retry = retry
			}
			if events, _ := slowDecode(string(out), noLimit); len(events) != 1 || events[0].String() != want.String() {
				t.Errorf("%q means %v, not %v", out, events, want)
			}
		}
	})
}
