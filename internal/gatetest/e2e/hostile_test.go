package e2e

import (
	"bufio"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "ssegate/internal/gatetest"
)

// TestHostile: 10 000 requests, many of them broken, to an upstream whose
// answers are broken in every way. Nothing crashes or hangs, memory is bounded,
// nobody gets what is another's, no request that can be understood in two ways
// goes on, and a good stream works afterwards.
func TestHostile(t *testing.T) {
	t.Run("many", func(t *testing.T) { hostile(t, plain(t), 7000, 7000, "") })
	t.Run("race detector", func(t *testing.T) { hostile(t, bin, 1500, 1500, "") })
	t.Run("joined, first byte", func(t *testing.T) {
		hostile(t, bin, 1500, 300, "attach = \"content\"\nattach_for = \"1s\"\nfirst_byte_heartbeat = \"10ms\"\nheartbeat = \"50ms\"\n")
	})
}

// roomFor is what the node may take while limits.memory is 16 MiB: that, once
// more for the garbage collector, and the process itself.
const roomFor = 160 << 20

// hostile sends requests that ask for so many different answers.
func hostile(t *testing.T, with string, requests, answers int, more string) {
	b := NewBackend(t)
	l := newLiar(t)
	n := Start(t, with, "one", fmt.Sprintf(`
[limits]
memory = "16MiB"
event_size = "64KiB"

[[upstream]]
name = "good"
targets = [%q]

[[upstream]]
name = "liar"
targets = [%q]
max_fails = 0
header_timeout = "2s"

[[route]]
path = "/"
upstream = "good"

[[route]]
path = "/x"
upstream = "liar"
detach_for = "100ms"
log_ttl = "1s"
log_length = 1024
ring_bytes = "1MiB"
%s`, b.URL, l.URL, more))
	p := processOf(t, n)
	EventSource(t, n.URL+"/count?n=10", "").Rest()
	goroutines := n.Metric("go_goroutines")
	stop := p.peak()

	h := &attackers{t: t, addr: strings.TrimPrefix(n.URL, "http://"), liar: l, lies: uint64(answers)}
	begun := time.Now()
	h.run(16, requests)
	t.Logf("%d requests in %v, %d came to the upstream; answers: %v", requests, time.Since(begun).Round(time.Millisecond), l.asked.Load(), h.answers())
	if asked := l.asked.Load(); asked < int64(requests)/3 {
		t.Errorf("only %d came to the upstream", asked)
	}
	highest := stop()
	t.Logf("resident: at most %s", mib(highest))
	if with != bin && highest > roomFor {
		t.Error("that is too much")
	}

	s := EventSource(t, n.URL+"/count?n=30&every=1ms", "")
	got, clean := s.Rest()
	want(t, got, Numbers(1, 30, true))
	if !clean {
		t.Error("a good stream was cut")
	}
	nothingLeft(t, n, p, goroutines)
	if n.Logged("panic") {
		t.Error("it panicked")
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// attackers send requests and look at what comes back.
type attackers struct {
	t    *testing.T
	addr string
	liar *liar
	lies uint64 // different answers that are asked for

	mu     sync.Mutex
	ids    []string // that the gate gave out
	counts map[string]int
	failed atomic.Int64
}

func (h *attackers) run(workers, requests int) {
	h.counts = map[string]int{}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				seed := uint64(next.Add(1))
				if seed > uint64(requests) || h.failed.Load() > 5 {
					return
				}
				h.attack(seed)
			}
		})
	}
	wg.Wait()
}

func (h *attackers) answers() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts
}

func (h *attackers) fail(format string, args ...any) {
	h.failed.Add(1)
	h.t.Errorf(format, args...)
}

var mintedID = regexp.MustCompile(`(?m)^id: (sg1\.[A-Za-z0-9._-]{40,61})\r?$`)
var anyMark = regexp.MustCompile(`<<([0-9]+)>>`)

// attack sends one request, reads all that comes of it, and judges.
func (h *attackers) attack(number uint64) {
	rng := rand.New(rand.NewPCG(number, 11))
	seed := number % h.lies
	h.mu.Lock()
	id := ""
	if len(h.ids) > 0 {
		id = h.ids[rng.IntN(len(h.ids))]
	}
	h.mu.Unlock()
	r := request(rng, seed, h.addr, id)
	answer := lie(seed)
	tell := func(format string, args ...any) {
		h.fail("request %d of answer %d (%s; the upstream: %s): %s", number, seed, r.kind, answer.kind, fmt.Sprintf(format, args...))
	}
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		tell("%v", err)
		return
	}
	defer c.Close()
	patience := Patience
	if answer.hang || r.cut {
		patience = 200 * time.Millisecond
	}
	c.SetDeadline(time.Now().Add(patience))
	go c.Write(r.bytes) // it may be answered before it is whole
	in := bufio.NewReader(c)
	for answers := 0; ; answers++ {
		if _, err := in.Peek(1); err != nil {
			switch {
			case isTimeout(err) && patience == Patience:
				tell("it hangs after %d answers: %.300q", answers, r.bytes)
			case answers == 0:
				h.count("none")
			}
			return
		}
		resp, err := http.ReadResponse(in, &http.Request{Method: r.method})
		if err != nil {
			// Of a head that cannot be read it is not known that it is a HEAD,
			// whose answer has no body; the connection is closed behind it.
			if patience == Patience && !errors.Is(err, io.ErrUnexpectedEOF) && !isReset(err) && !(r.method == "HEAD" && answers > 0) {
				tell("the answer's head: %v", err)
			}
			return
		}
		if resp.StatusCode < 200 && resp.StatusCode != 101 {
			continue
		}
		h.count(fmt.Sprint(resp.StatusCode))
		if r.refused && resp.StatusCode < 400 {
			tell("a request that nobody should understand is answered %d: %.300q", resp.StatusCode, r.bytes)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
		if strings.Contains(fmt.Sprint(err), "chunk") {
			tell("the answer's chunks: %v", err)
		}
		if isTimeout(err) && patience == Patience {
			tell("it hangs after %d bytes: %.300q", len(body), body)
			return
		}
		for _, m := range anyMark.FindAllSubmatch(body, -1) {
			if string(m[1]) != fmt.Sprint(seed) && r.control == "" && id == "" {
				tell("it was given what is %s's", m[1])
			}
		}
		if answer.kind == "good" {
			h.learn(body)
		}
		if err != nil {
			return
		}
	}
}

func (h *attackers) count(what string) {
	h.mu.Lock()
	h.counts[what]++
	h.mu.Unlock()
}

// learn keeps ids that the gate has given out, and has the upstream know them.
func (h *attackers) learn(body []byte) {
	for _, m := range mintedID.FindAllSubmatch(body, -1) {
		id := string(m[1])
		h.liar.mu.Lock()
		h.liar.minted[id] = true
		h.liar.mu.Unlock()
		h.mu.Lock()
		if len(h.ids) < 200 {
			h.ids = append(h.ids, id)
		}
		h.mu.Unlock()
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

// attackRequest is what is sent, and what may come of it.
type attackRequest struct {
	kind    string
	method  string
	bytes   []byte
	control string // path below /_ssegate
	refused bool   // it must not go on
	cut     bool   // it is not whole: the gate may wait
}

// request makes one up. id is one that the gate gave out, or "".
func request(rng *rand.Rand, seed uint64, host, id string) attackRequest {
	path := fmt.Sprint("/x/", seed)
	r := attackRequest{kind: "EventSource", method: "GET"}
	lines := []string{"Host: " + host, "Connection: close", "Accept: text/event-stream"}
	body := ""
	switch rng.IntN(12) {
	case 0:
		r.kind, r.method = "POST", pick(rng, "POST", "PUT", "PATCH")
		body = string(noise(rng, rng.IntN(20_000)))
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	case 1:
		r.kind, r.method = "POST in chunks", "POST"
		for range rng.IntN(4) {
			part := noise(rng, 1+rng.IntN(3000))
			body += fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
		}
		body += "0\r\n\r\n"
		lines = append(lines, "Transfer-Encoding: chunked")
	case 2:
		r.kind, r.method = "method", pick(rng, "HEAD", "OPTIONS", "DELETE", "TRACE", "FOO", "get", "M-SEARCH", strings.Repeat("X", 1+rng.IntN(2000)))
	case 3:
		r.kind = "Last-Event-ID"
		lines = append(lines, "Last-Event-ID: "+anID(rng, id))
	case 4:
		r.kind = "lastEventId in the query"
		path += "?a=b&lastEventId=" + pick(rng, anID(rng, id), "%zz", "%00%0d%0a", "", strings.Repeat("%41", 2000)) + pick(rng, "", "&lastEventId=2", "&c")
		path = strings.Map(func(r rune) rune {
			if r <= ' ' || r >= 0x7f {
				return 'x'
			}
			return r
		}, path)
	case 5, 6:
		r.kind, r.method = "control path", pick(rng, "GET", "DELETE", "POST", "OPTIONS", "HEAD", "FOO")
		r.control = controlPath(rng, id)
		path = r.control
		if rng.IntN(2) == 0 {
			lines = append(lines, "Last-Event-ID: "+anID(rng, id))
		}
	case 7, 8:
		r.kind, r.refused = "smuggling", true
		r.bytes = []byte(strings.NewReplacer("$P", path, "$H", host).Replace(smuggled[rng.IntN(len(smuggled))]))
		return r
	case 9:
		r.kind, r.cut = "random bytes", true
		r.bytes = noise(rng, rng.IntN(3000))
		if rng.IntN(2) == 0 {
			r.bytes = append(r.bytes, "\r\n\r\n"...)
		}
		return r
	case 10:
		r.kind = "headers"
		for range rng.IntN(200) {
			lines = append(lines, fmt.Sprintf("X-%d: %s", rng.IntN(100), base64.StdEncoding.EncodeToString(noise(rng, rng.IntN(300)))))
		}
		lines = append(lines, pick(rng, "Upgrade: websocket", "Expect: 100-continue", "Expect: 200", "TE: trailers", "Range: bytes=0-1", "Cookie: a=b; c",
			"Accept-Encoding: gzip, br", "Authorization: Bearer x", "X-Forwarded-For: 1.2.3.4, x", "Connection: x-1, close", "Proxy-Connection: keep-alive"))
	}
	r.bytes = []byte(r.method + " " + path + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + body)
	switch rng.IntN(20) {
	case 0:
		r.kind, r.cut = r.kind+", cut", true
		r.bytes = r.bytes[:rng.IntN(len(r.bytes))]
	case 1:
		r.kind, r.cut = r.kind+", changed", true
		r.bytes[rng.IntN(len(r.bytes))] = byte(rng.IntN(256))
	}
	return r
}

// anID makes up what a client may come back with.
func anID(rng *rand.Rand, id string) string {
	switch rng.IntN(8) {
	case 0:
		return strings.Repeat("x", 64<<10)
	case 1:
		return "sg1." + strings.Repeat("A", rng.IntN(20_000))
	case 2:
		return strings.Map(func(r rune) rune { return max(r, ' ') }, string(noise(rng, rng.IntN(300))))
	case 3:
		return fmt.Sprint(rng.IntN(100))
	}
	if id == "" {
		return "none"
	}
	b := []byte(id)
	switch rng.IntN(4) {
	case 0:
		b[rng.IntN(len(b))] = "ABCxyz019-_."[rng.IntN(12)]
	case 1:
		b = b[:rng.IntN(len(b))]
	case 2:
		b = append(b, b[rng.IntN(len(b)):]...)
	}
	return string(b)
}

// controlPath makes up a path below /_ssegate.
func controlPath(rng *rand.Rand, id string) string {
	name := pick(rng, "", "x", "..", "%2e%2e", strings.Repeat("A", 22), strings.Repeat("A", 23), strings.Repeat("%41", 22), strings.Repeat("x", 10_000),
		base64.RawURLEncoding.EncodeToString(noise(rng, 16)))
	if id != "" && rng.IntN(3) == 0 {
		names := must(base64.RawURLEncoding.DecodeString(id[4:36]))
		name = base64.RawURLEncoding.EncodeToString(names[:16])
	}
	return "/_ssegate/streams/" + name + pick(rng, "", "", "/status", "/", "/status/", "/stop", "//status", "?lastEventId=1", "/status?x", "/../status", ";x")
}

// smuggled are requests that two servers could understand differently. $P is
// a path of the upstream's, $H the host.
var smuggled = []string{
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 5, 5\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: +5\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: -5\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 5 \x0b\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nTransfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nX: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.1\r\nHost: $H\r\nX: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: $H\r\n\r\n",
	"POST $P HTTP/1.0\r\nHost: $H\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nLast-Event-ID: 1\rX: y\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nLast-Event-ID: 1\x00\r\nAccept: text/event-stream\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nAccept: text/event-stream\r\n\tContent-Length: 5\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nHost: other\r\n\r\n",
	"GET $P HTTP/1.1\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: a b\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nNo colon\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\n: empty\r\n\r\n",
	"GET $P HTTP/1.1\r\nHost: $H\r\nX\xffY: z\r\n\r\n",
	"GET http://other$P HTTP/1.1\r\nHost: $H\r\n\r\n",
	"CONNECT $H HTTP/1.1\r\nHost: $H\r\n\r\n",
	"GET $P HTTP/2.0\r\nHost: $H\r\n\r\n",
}
