package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestDemo(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, in := io.Pipe()
	var stderr strings.Builder
	code := make(chan int, 1)
	go func() {
		code <- demoUntil(ctx, "127.0.0.1:0", in, &stderr)
		in.Close()
	}()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatalf("the demo says nothing; it ended with %d: %s", <-code, stderr.String())
	}
	url := regexp.MustCompile(`http://\S+/`).FindString(lines.Text())
	if url == "" {
		t.Fatalf("no address in %q", lines.Text())
	}
	if !lines.Scan() || !strings.Contains(lines.Text(), "Ctrl-C") {
		t.Errorf("the second line does not say what to do: %q", lines.Text())
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	for path, want := range map[string]string{"": "<title>ssegate demo</title>", "page.css": "--paper", "page.js": "import", "stream.js": "export", "story.js": "export", "wires.js": "export"} {
		resp, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("GET %s: %d, without %q", url+path, resp.StatusCode, want)
		}
	}
	stop()
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d: %s", got, stderr.String())
	}
	if c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(url, "http:"), "/")); err == nil {
		c.Close()
		t.Error("the page is still served")
	}
	if stderr.Len() > 0 {
		t.Errorf("a demo that nothing has gone wrong in complains: %s", stderr.String())
	}
}

func TestDemoAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stderr strings.Builder
	if code := demoUntil(t.Context(), l.Addr().String(), io.Discard, &stderr); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(stderr.String(), "address already in use") || !strings.Contains(stderr.String(), "-listen") {
		t.Errorf("it says %q", stderr.String())
	}
}
