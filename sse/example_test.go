package sse_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"ssegate/sse"
)

// A whole upstream body, read in pieces that end anywhere, and written on with ids.
func Example() {
	body := strings.NewReader("data: one\r\n\r\nevent: delta\r\ndata: two\r\n\r\ndata: cut")

	var out []byte
	n := 0
	write := func(ev *sse.Event) {
		n++
		out = sse.AppendBlock(out, ev, fmt.Appendf(nil, "e-%d", n), sse.LF)
	}
	d := sse.NewDecoder(1 << 20)
	var ev sse.Event
	for piece := make([]byte, 10); ; {
		k, err := body.Read(piece)
		d.Feed(piece[:k])
		for {
			ok, tooLarge := d.Next(&ev)
			if tooLarge != nil {
				fmt.Println(tooLarge)
				return
			}
			if !ok {
				break
			}
			write(&ev)
		}
		if errors.Is(err, io.EOF) {
			break
		}
	}
	if ok, _ := d.Finish(&ev); ok {
		write(&ev)
	}
	fmt.Printf("%s\n", bytes.ReplaceAll(out, []byte("\n"), []byte("|\n")))
	// Output:
	// id: e-1|
	// data: one|
	// |
	// id: e-2|
	// event: delta|
	// data: two|
	// |
	// id: e-3|
	// data: cut
}
