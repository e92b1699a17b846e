package proxy

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// StreamHeader names a stream in the first response, so that a client may
// follow, stop or look at it under /_ssegate/streams/.
const StreamHeader = "Ssegate-Stream"

// head is what is kept of an event stream's first response, to answer those
// who come back. It travels in registry records as JSON.
type head struct {
	Status int         `json:"s"`
	Fields [][2]string `json:"f"`
	// Origin is what the first request said, and the only one that a literal
	// Access-Control-Allow-Origin can be known to allow.
	Origin string `json:"o,omitempty"`
}

// keepHead takes from an upstream's response what every follower is to see.
func keepHead(resp *http.Response, origin string) *head {
	h := &head{Status: resp.StatusCode, Origin: origin}
	hop := connectionNamed(resp.Header)
	for name, values := range resp.Header {
		if isHop(name) || slices.Contains(hop, name) {
			continue
		}
		switch name {
		case "Content-Length", "Content-Encoding", "X-Accel-Buffering", "Date", "Trailer", StreamHeader:
			continue
		}
		for _, v := range values {
			h.Fields = append(h.Fields, [2]string{name, v})
		}
	}
	slices.SortStableFunc(h.Fields, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	return h
}

// plainHead is the head of a stream whose upstream has not answered yet.
func plainHead(origin string) *head {
	return &head{
		Status: http.StatusOK,
		Fields: [][2]string{{"Content-Type", "text/event-stream"}},
		Origin: origin,
	}
}

func (h *head) encode() []byte {
	b, _ := json.Marshal(h) // strings and numbers always marshal
	return b
}

func decodeHead(b []byte) *head {
	var h head
	if len(b) == 0 || json.Unmarshal(b, &h) != nil || h.Status < 200 || h.Status > 299 {
		return plainHead("")
	}
	return &h
}

// asked is what a response head depends on in the request that it answers.
type asked struct {
	origin  string
	http11  bool
	keeps   bool // it said itself what it means to do with the connection
	resumed bool // not the request that started the stream
	reqID   string
	stream  string
	ours    []field // where the backend's CORS fields do not hold, on our own paths
}

// append builds the bytes of a response head for one follower.
func (h *head) append(dst []byte, a asked) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(h.Status), 10)
	dst = append(dst, ' ')
	dst = append(dst, http.StatusText(h.Status)...)
	dst = append(dst, "\r\n"...)
	add := func(name, value string) {
		dst = append(dst, name...)
		dst = append(dst, ": "...)
		dst = append(dst, value...)
		dst = append(dst, "\r\n"...)
	}
	allowed := h.allows(a)
	cacheControl := false
	exposed := false
	for _, f := range h.Fields {
		name, value := f[0], f[1]
		switch {
		case a.resumed && name == "Set-Cookie":
			continue // it was meant for the first answer
		case strings.HasPrefix(name, "Access-Control-"):
			if !allowed {
				continue
			}
			if name == "Access-Control-Expose-Headers" && value != "*" {
				value += ", " + StreamHeader
				exposed = true
			} else if name == "Access-Control-Expose-Headers" {
				exposed = !h.credentials() // a wildcard counts for nothing with credentials
				if !exposed {
					value = StreamHeader
					exposed = true
				}
			}
		case name == "Cache-Control":
			cacheControl = true
			if !strings.Contains(value, "no-transform") {
				value += ", no-transform"
			}
		case name == "X-Request-Id":
			continue
		}
		add(name, value)
	}
	if !cacheControl {
		add("Cache-Control", "no-cache, no-transform")
	}
	add("X-Accel-Buffering", "no")
	if !allowed {
		for _, f := range a.ours {
			add(f.name, f.value)
		}
	}
	if a.stream != "" {
		add(StreamHeader, a.stream)
		if !exposed && allowed && h.field("Access-Control-Allow-Origin") != "" {
			add("Access-Control-Expose-Headers", StreamHeader)
		}
	}
	if a.reqID != "" {
		add("X-Request-Id", a.reqID)
	}
	if a.http11 {
		add("Transfer-Encoding", "chunked")
	}
	return append(appendLast(dst, a.http11 && a.keeps), "\r\n"...)
}

// appendLast says that the connection ends with an answer that may be cut.
//
// "Connection: close" says it best, and proxies in front that keep connections
// to us hold to it. But Node's fetch (undici) takes the end of a connection
// that was announced so for the end of the answer, in the middle of a chunk as
// well: half an answer would look whole. It is told in another way, which it
// knows too. It is told from the others by a Connection field of its own.
func appendLast(dst []byte, keeps bool) []byte {
	if keeps {
		return append(dst, "Keep-Alive: timeout=1\r\n"...)
	}
	return append(dst, "Connection: close\r\n"...)
}

func (h *head) field(name string) string {
	for _, f := range h.Fields {
		if f[0] == name {
			return f[1]
		}
	}
	return ""
}

func (h *head) credentials() bool { return h.field("Access-Control-Allow-Credentials") == "true" }

// allows reports whether the CORS fields hold for the origin that asks now.
func (h *head) allows(a asked) bool {
	if !a.resumed {
		return true
	}
	allow := h.field("Access-Control-Allow-Origin")
	return allow == "*" || allow != "" && (allow == a.origin || a.origin == "" && allow == h.Origin)
}

// hopByHop are the fields of RFC 9110 §7.6.1 that end at each hop, beside
// those that Connection names.
var hopByHop = map[string]bool{
	"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Te": true,
	"Transfer-Encoding": true, "Upgrade": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
}

func isHop(name string) bool { return hopByHop[name] }

// connectionNamed lists the fields that Connection names, canonical.
func connectionNamed(h http.Header) []string {
	var names []string
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			names = append(names, http.CanonicalHeaderKey(strings.TrimSpace(name)))
		}
	}
	return names
}
