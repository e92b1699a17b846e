package gate

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// What the internal listener refuses it refuses in JSON, but for heads that its
// server answers before anybody of ours is asked: those are plain text, and the
// connection is closed.
func TestInternalRefusals(t *testing.T) {
	cfg := Default()
	cfg.Listen.Public, cfg.Listen.Internal = "127.0.0.1:0", "127.0.0.1:0"
	cfg.Push.On = true
	g, err := New(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := httptest.NewUnstartedServer(nil)
	s.Config = g.internalServer()
	s.Start()
	defer s.Close()
	const host = "Host: localhost\r\n"
	for request, want := range map[string]struct {
		status int
		reason string // "": plain text
	}{
		"GET /nothing HTTP/1.1\r\n" + host:                                               {404, "not_found"},
		"GET / HTTP/1.1\r\n" + host:                                                      {404, "not_found"},
		"POST /healthz HTTP/1.1\r\n" + host:                                              {405, "method_not_allowed"},
		"DELETE /metrics HTTP/1.1\r\n" + host:                                            {405, "method_not_allowed"},
		"GET /api/v1/nothing HTTP/1.1\r\n" + host:                                        {404, "not_found"},
		"PUT /api/v1/messages/send HTTP/1.1\r\n" + host:                                  {405, "method_not_allowed"},
		"HEAD /healthz HTTP/1.1\r\n" + host:                                              {200, ""},
		"POST /api/v1/messages/send HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n": {501, ""},
		"POST /api/v1/messages/send HTTP/1.1\r\n" + host + "Content-Length: x\r\n":       {400, ""},
		"POST /api/v1/messages/send HTTP/1.1\r\n":                                        {400, ""},
		"nonsense\r\n": {400, ""},
		"GET /healthz HTTP/1.1\r\n" + host + "X: " + strings.Repeat("x", 2<<20) + "\r\n":                                                       {431, ""},
		"POST /api/v1/messages/send HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n" + "Content-Type: application/json\r\n\r\nnonsense": {400, "body_cut"},
	} {
		name := request[:min(len(request), 80)]
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		go fmt.Fprintf(c, "%s\r\n", request)
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: strings.Fields(request)[0]})
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		body, _ := io.ReadAll(resp.Body)
		c.Close()
		var said struct {
			Error struct{ Reason, Detail string }
		}
		isJSON := resp.Header.Get("Content-Type") == "application/json" && json.Unmarshal(body, &said) == nil
		if resp.StatusCode != want.status || said.Error.Reason != want.reason || isJSON != (want.reason != "") {
			t.Errorf("%q: %d %q", name, resp.StatusCode, body)
		}
		if want.status == 405 && resp.Header.Get("Allow") == "" {
			t.Errorf("%q: %v", name, resp.Header)
		}
		if want.reason == "" && want.status >= 400 && !resp.Close {
			t.Errorf("%q: the connection goes on", name)
		}
	}
}
