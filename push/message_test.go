package push

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"ssegate/sse"
)

func testStyle() *style {
	return &style{
		ttl: time.Hour, maxTTL: 24 * time.Hour, maxEvent: 1 << 20,
		id:  func() string { return "msg_made" },
		now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC) },
	}
}

// read reads a message as the API does.
func read(text string, st *style) (message, *reader) {
	r := &reader{s: &scanner{in: []byte(text)}, style: st}
	m := r.message()
	r.s.end()
	return m, r
}

func sound(t *testing.T, text string, st *style) message {
	t.Helper()
	m, r := read(text, st)
	if r.s.err != nil || r.p.any() {
		t.Fatalf("%s: %v, %v", text, r.s.err, r.p.String())
	}
	return m
}

// The envelope of the seed.
const seedMessage = `{
  "id": "msg_1753859400_001",
  "timestamp": "2025-07-30T15:10:00.123Z",
  "type": "progress",
  "service": "knowledge-service",
  "source": "document_processing",
  "target": {
    "user_id": "user123",
    "session_id": "session456",
    "kb_id": "kb789"
  },
  "data": {
    "task_id": "task_abc123",
    "progress": 65,
    "stage": "embedding",
    "message": "正在生成向量嵌入...",
    "details": {
      "processed_chunks": 13,
      "total_chunks": 20,
      "current_file": "document.pdf"
    }
  },
  "metadata": {
    "priority": "normal",
    "ttl": 3600,
    "retry_count": 0
  }
}`

// event decodes a block as a client does.
func event(t testing.TB, block []byte) (name, data string) {
	t.Helper()
	d := sse.NewDecoder(len(block) + 1)
	d.Feed(block)
	var ev sse.Event
	ok, err := d.Next(&ev)
	if !ok || err != nil || ev.HasID {
		t.Fatalf("not one event without an id: %q, %v", block, err)
	}
	name, data = string(ev.Name), string(ev.Data)
	if ok, _ := d.Next(&ev); ok || d.Buffered() > 0 {
		t.Fatalf("more than one event: %q", block)
	}
	return name, data
}

func TestSeedMessage(t *testing.T) {
	m := sound(t, seedMessage, testStyle())
	if m.id != "msg_1753859400_001" || !m.own || m.ttl != time.Hour || m.prio != Normal {
		t.Errorf("%+v", m)
	}
	if want := []Place{{User, "user123"}, {Service, "knowledge-service"}}; !reflect.DeepEqual(m.places(), want) || m.named != 1 {
		t.Errorf("goes to %v, %d named", m.places(), m.named)
	}
	if want := (narrowing{Session: "session456", KB: "kb789"}); m.about != want {
		t.Errorf("narrowed to %+v", m.about)
	}
	name, data := event(t, m.block)
	var want bytes.Buffer
	json.Compact(&want, []byte(seedMessage))
	if name != "progress" || data != want.String() {
		t.Errorf("%s: %s\nwant %s", name, data, want.String())
	}
}

// What is missing is filled in, null counts as missing, and what is unknown
// passes as it was sent.
func TestFillIn(t *testing.T) {
	const id, at, meta = `"id":"msg_made"`, `"timestamp":"2026-01-02T03:04:05.678Z"`, `"metadata":{"priority":"normal","ttl":3600,"retry_count":0}`
	for sent, want := range map[string]string{
		`{}`: `{` + id + `,` + at + `,` + meta + `}`,
		`{"type":"info","target":{"user_id":"u"}}`:                                      `{` + id + `,` + at + `,"type":"info","target":{"user_id":"u"},` + meta + `}`,
		`{"id":null, "x":1}`:                                                            `{` + id + `,` + at + `,"x":1,` + meta + `}`,
		`{"x" : [ 1 , {"y":"a b"} ] , "id" : null}`:                                     `{` + id + `,` + at + `,"x":[1,{"y":"a b"}],` + meta + `}`,
		`{"metadata":null,"timestamp":null,"x":null,"id":null}`:                         `{` + id + `,` + at + `,"x":null,` + meta + `}`,
		`{"metadata":{},"x":2}`:                                                         `{` + id + `,` + at + `,` + meta + `,"x":2}`,
		`{"metadata":{"ttl":5}}`:                                                        `{` + id + `,` + at + `,"metadata":{"ttl":5,"priority":"normal","retry_count":0}}`,
		`{"metadata":{"ttl":null,"trace":"t","priority":null}}`:                         `{` + id + `,` + at + `,"metadata":{"trace":"t","priority":"normal","ttl":3600,"retry_count":0}}`,
		`{"id":"a","timestamp":"2025-07-30T15:10:00","metadata":{"retry_count":1}}`:     `{"id":"a","timestamp":"2025-07-30T15:10:00","metadata":{"retry_count":1,"priority":"normal","ttl":3600}}`,
		`{"\u0069d":"a","target":{"user_id":"\u0075"},"data":"\u000d\u000adata: x"}`:    `{` + at + `,"\u0069d":"a","target":{"user_id":"\u0075"},"data":"\u000d\u000adata: x",` + meta + `}`,
		`{"data":{"n":1e400,"big":123456789012345678901234567890,"s":"\u2028"},"k":{}}`: `{` + id + `,` + at + `,"data":{"n":1e400,"big":123456789012345678901234567890,"s":"\u2028"},"k":{},` + meta + `}`,
	} {
		m := sound(t, sent, testStyle())
		if _, data := event(t, m.block); data != want {
			t.Errorf("%s:\ngot  %s\nwant %s", sent, data, want)
		}
	}
}

func TestHowMessagesBecomeEvents(t *testing.T) {
	const text = `{"type":"error","data":{"a": [1, 2]},"target":{"user_id":"u"}}`
	st := testStyle()
	st.payloadData = true
	if name, data := event(t, sound(t, text, st).block); name != "error" || data != `{"a":[1,2]}` {
		t.Errorf("payload data: %s %s", name, data)
	}
	if _, data := event(t, sound(t, `{}`, st).block); data != "null" {
		t.Errorf("no data: %s", data)
	}
	st.unnamed = true
	if name, _ := event(t, sound(t, text, st).block); name != "" {
		t.Errorf("unnamed: %s", name)
	}
	if name, _ := event(t, sound(t, `{"data":1}`, testStyle()).block); name != "" {
		t.Errorf("no type: %s", name)
	}
	st.types = []string{"build.done"}
	st.unnamed = false
	if name, _ := event(t, sound(t, `{"type":"build.done"}`, st).block); name != "build.done" {
		t.Errorf("a type of one's own: %s", name)
	}
}

func TestTargets(t *testing.T) {
	for target, want := range map[string][]string{
		`{"user_id":"u"}`: {"user/u"},
		`{"user_id":"u","channel":"c","service":"s"}`:    {"user/u", "channel/c", "service/s"},
		`{"session_id":"s"}`:                             {"channel/session:s"},
		`{"session_id":"s","kb_id":"k","task_id":"t"}`:   {"channel/session:s", "channel/kb:k", "channel/task:t"},
		`{"channel":"c","task_id":"t"}`:                  {"channel/c"},
		`{"connection_id":"x"}`:                          {"connection/x"},
		`{"connection_id":"x","session_id":"s"}`:         {"connection/x"},
		`{"user_id":"u","connection_id":"x"}`:            {"user/u"},
		`{"user_id":null,"channel":"c","other":{"a":1}}`: {"channel/c"},
		`null`: {},
		`{}`:   {},
	} {
		m := sound(t, `{"target":`+target+`}`, testStyle())
		got := []string{}
		for _, p := range m.places() {
			got = append(got, p.String())
		}
		if !reflect.DeepEqual(got, want) || m.named != len(want) {
			t.Errorf("%s goes to %v, want %v", target, got, want)
		}
	}
	m := sound(t, `{"service":"s","target":{"service":"s"}}`, testStyle())
	if m.n != 1 {
		t.Errorf("a service's own listeners get it %d times", m.n)
	}
	m = sound(t, `{"target":{"user_id":"u","connection_id":"x","session_id":"s","task_id":"t"}}`, testStyle())
	if want := (narrowing{Session: "s", Task: "t", Connection: "x"}); m.about != want {
		t.Errorf("narrowed to %+v", m.about)
	}
}

// Each mistake names its field, and all of a message are told at once.
func TestWrongMessages(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	for text, fields := range map[string]string{
		`[]`:                                        "message",
		`"x"`:                                       "message",
		`null`:                                      "message",
		`{"id":1}`:                                  "id",
		`{"id":""}`:                                 "id",
		`{"id":"a\r\nb"}`:                           "id",
		`{"id":"a\u0000"}`:                          "id",
		`{"id":"a\u2028"}`:                          "id",
		`{"id":"\ud800"}`:                           "id",
		`{"id":"` + long + `"}`:                     "id",
		`{"id":"a","id":"b"}`:                       "id",
		`{"id":"a","\u0069d":"b"}`:                  "id",
		`{"timestamp":"yesterday"}`:                 "timestamp",
		`{"timestamp":1753859400}`:                  "timestamp",
		`{"type":"shout"}`:                          "type",
		`{"type":"info\ndata: forged"}`:             "type",
		`{"type":""}`:                               "type",
		`{"type":["info"]}`:                         "type",
		`{"source":{}}`:                             "source",
		`{"source":"a\nb"}`:                         "source",
		`{"service":"a/b"}`:                         "service",
		`{"service":7}`:                             "service",
		`{"target":"u"}`:                            "target",
		`{"target":[]}`:                             "target",
		`{"target":{"user_id":5}}`:                  "target.user_id",
		`{"target":{"user_id":""}}`:                 "target.user_id",
		`{"target":{"user_id":"a/b"}}`:              "target.user_id",
		`{"target":{"user_id":"*"}}`:                "target.user_id",
		`{"target":{"user_id":"a,b"}}`:              "target.user_id",
		`{"target":{"user_id":"a?"}}`:               "target.user_id",
		`{"target":{"user_id":"a#"}}`:               "target.user_id",
		`{"target":{"user_id":" a"}}`:               "target.user_id",
		`{"target":{"channel":"a\t"}}`:              "target.channel",
		`{"target":{"service":"` + long + `"}}`:     "target.service",
		`{"target":{"session_id":true}}`:            "target.session_id",
		`{"target":{"kb_id":{}}}`:                   "target.kb_id",
		`{"target":{"task_id":"a*"}}`:               "target.task_id",
		`{"target":{"connection_id":"/"}}`:          "target.connection_id",
		`{"target":{"user_id":"a","user_id":"b"}}`:  "target.user_id",
		`{"metadata":[]}`:                           "metadata",
		`{"metadata":{"priority":"urgent"}}`:        "metadata.priority",
		`{"metadata":{"priority":1}}`:               "metadata.priority",
		`{"metadata":{"ttl":-1}}`:                   "metadata.ttl",
		`{"metadata":{"ttl":1.5}}`:                  "metadata.ttl",
		`{"metadata":{"ttl":"60"}}`:                 "metadata.ttl",
		`{"metadata":{"ttl":99999999999999999999}}`: "metadata.ttl",
		`{"metadata":{"retry_count":"a"}}`:          "metadata.retry_count",
		`{"id":1,"type":2,"target":{"user_id":3,"channel":4},"metadata":{"ttl":"x"}}`: "id type target.user_id target.channel metadata.ttl",
	} {
		_, r := read(text, testStyle())
		var got []string
		for _, p := range r.p.list {
			got = append(got, p.Field)
			if p.Problem == "" || strings.ContainsAny(p.Problem, "\r\n\x00") {
				t.Errorf("%s: %q", text, p.Problem)
			}
		}
		if strings.Join(got, " ") != fields || r.s.err != nil {
			t.Errorf("%s: wrong are %v, want %s (%v)", text, got, fields, r.s.err)
		}
	}
}

func TestBrokenJSON(t *testing.T) {
	deep := strings.Repeat("[", maxDepth+1)
	for text, at := range map[string]int{
		``:                   0,
		`{`:                  1,
		`{"a"`:               4,
		`{"a":`:              5,
		`{"a":1`:             6,
		`{"a":1,}`:           7,
		`{,"a":1}`:           1,
		`{"a":1 "b":2}`:      7,
		`{"a" 1}`:            5,
		`{a:1}`:              1,
		`{"a":tru}`:          5,
		`{"a":nullx}`:        9,
		`{"a":01}`:           7,
		`{"a":-}`:            6,
		`{"a":1.}`:           7,
		`{"a":1e}`:           7,
		`{"a":"x`:            7,
		"{\"a\":\"x\ny\"}":   7,
		"{\"a\":\"x\x00y\"}": 7,
		`{"a":"\x"}`:         6,
		`{"a":"\u12g4"}`:     6,
		"{\"a\":\"\xff\"}":   5,
		`{"a":1} x`:          8,
		`{"a":[1 2]}`:        8,
		`{"a":[1,]}`:         8,
		`{"a":}`:             5,
		`{"id":null "x":1}`:  11,
		"\x00":               0,
		"{\"a\":1}\x00":      7,
		`{"a":` + deep:       5 + maxDepth - 1,
	} {
		_, r := read(text, testStyle())
		if r.s.err == nil {
			t.Errorf("%q passes", text)
		} else if r.s.err.at != at {
			t.Errorf("%q: %v, want byte %d", text, r.s.err, at)
		}
	}
}

func TestTooLargeEvent(t *testing.T) {
	st := testStyle()
	st.maxEvent = 1000
	if _, r := read(`{"data":"`+strings.Repeat("x", 1000)+`"}`, st); len(r.p.list) != 1 || r.p.list[0].Field != "data" {
		t.Errorf("%v", r.p.list)
	}
}

// Whatever is sent, what is taken is one event without an id, whose name is a
// type and whose data is JSON that says what was sent.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(seedMessage))
	f.Add([]byte(`{"type":"info\r\ndata: x","target":{"user_id":"\r\n"},"id":"\n"}`))
	f.Add([]byte(`{"id":null,"metadata":{"ttl":null,"x":[{}]},"data":"\u000a","t":"` + "\xe2\x80\xa8" + `"}`))
	f.Add([]byte(`{"x":1,"metadata":{"priority":null},"\u0069d":null,"y":2}`))
	styles := []*style{testStyle(), testStyle()}
	styles[1].payloadData = true
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, st := range styles {
			r := &reader{s: &scanner{in: text}, style: st}
			m := r.message()
			r.s.end()
			if r.s.err == nil && !json.Valid(text) {
				t.Fatalf("passes as JSON: %q", text)
			}
			if r.s.err != nil || r.p.any() {
				continue
			}
			name, data := event(t, m.block)
			if name != m.name || name != "" && !strings.Contains(" progress status error success warning info custom ", " "+name+" ") {
				t.Fatalf("event %q of type %q", name, m.name)
			}
			if wrongID(m.id) != "" {
				t.Fatalf("id %q", m.id)
			}
			for _, p := range m.places() {
				if wrongName(p.Name) != "" {
					t.Fatalf("goes to %q", p)
				}
			}
			if st.payloadData {
				if !json.Valid([]byte(data)) {
					t.Fatalf("data %q", data)
				}
				continue
			}
			var sent, got map[string]any
			if json.Unmarshal(text, &sent) != nil || json.Unmarshal([]byte(data), &got) != nil {
				return // numbers that float64 does not hold
			}
			for k, v := range sent {
				switch k {
				case "id", "timestamp", "metadata":
					if v == nil {
						v = got[k]
					}
				}
				if k != "metadata" && !reflect.DeepEqual(got[k], v) {
					t.Fatalf("%s: sent %v, got %v", k, v, got[k])
				}
			}
			meta, _ := got["metadata"].(map[string]any)
			if got["id"] != m.id || got["timestamp"] == nil || meta["priority"] == nil || meta["ttl"] == nil || meta["retry_count"] == nil {
				t.Fatalf("not filled in: %s", data)
			}
		}
	})
}

func BenchmarkMessage(b *testing.B) {
	st := testStyle()
	var s scanner
	b.SetBytes(int64(len(seedMessage)))
	b.ReportAllocs()
	for b.Loop() {
		s = scanner{in: []byte(seedMessage), out: s.out[:0]}
		r := reader{s: &s, style: st}
		if m := r.message(); len(m.block) == 0 {
			b.Fatal(r.p.String())
		}
	}
}

// The same by encoding/json, as a measure.
func BenchmarkMessageEncodingJSON(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var m map[string]json.RawMessage
		if json.Unmarshal([]byte(seedMessage), &m) != nil {
			b.Fatal()
		}
		if _, err := json.Marshal(m); err != nil {
			b.Fatal(err)
		}
	}
}
