package client

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// run feeds events to the JavaScript module, through an EventSource, and says
// what became of them: the files' data, or what was thrown.
const run = `
const { attach } = await import(process.argv[1]);
const source = new EventTarget(), out = [];
attach(source, f => out.push(f.type + " " + new TextDecoder().decode(f.data)), e => out.push(e.message), { most: 10, open: 2 });
let text = "";
for await (const chunk of process.stdin) text += chunk;
for (const [name, data] of JSON.parse(text)) source.dispatchEvent(Object.assign(new Event(name), { data }));
console.log(JSON.stringify(out));
`

func TestJavaScript(t *testing.T) {
	module, err := filepath.Abs("pieces.mjs")
	if err != nil {
		t.Fatal(err)
	}
	for want, events := range map[string][]event{
		"text/x foobar":                         {begin("a", 2, 6), part("a", 0, 0, "foo"), part("a", 0, 0, "foo"), part("a", 1, 3, "bar"), end("a", 2, "foobar")},
		"text/x \x00ÿ":                          {begin("a", 0, 0), part("a", 0, 0, "\x00ÿ"), end("a", 1, "\x00ÿ")},
		"":                                      {part("a", 1, 3, "bar"), end("a", 2, "foobar"), {"ssegate.stream", `{"stream":"b","state":"begin","kind":"events"}`}},
		"stream a: piece 2 came where 1 should": {begin("a", 3, 9), part("a", 0, 0, "foo"), part("a", 2, 6, "baz"), end("a", 3, "foo")},
		"stream a: 1 pieces of 2 came":          {begin("a", 2, 6), part("a", 0, 0, "foo"), end("a", 2, "foobar")},
		"stream a: cut by its publisher":        {begin("a", 2, 6), {"ssegate.stream", `{"stream":"a","state":"cut","kind":"pieces"}`}},
		"stream a: more than 10 bytes":          {begin("a", 0, 0), part("a", 0, 0, "01234567890")},
		"stream c: too many are under way":      {begin("a", 0, 0), begin("b", 0, 0), begin("c", 0, 0)},
	} {
		list := [][2]string{}
		for _, e := range events {
			list = append(list, [2]string{e.name, e.data})
		}
		in, _ := json.Marshal(list)
		cmd := exec.Command("node", "--input-type=module", "-e", run, "file://"+module)
		cmd.Stdin = bytes.NewReader(in)
		var errs strings.Builder
		cmd.Stderr = &errs
		b, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, errs.String())
		}
		var got []string
		if err := json.Unmarshal(b, &got); err != nil || strings.Join(got, "; ") != want {
			t.Errorf("%q, want %q (%v)", got, want, err)
		}
	}
}
