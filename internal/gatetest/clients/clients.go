//go:build unix

// Package clients reads event streams with the libraries that people really use: OpenAI's for JavaScript and Python, the
// EventSources of npm and undici, eventsource-parser, fetch-event-source and sse.js. What a test sees is what an
// application would be handed, which is how one finds out that a stream is right by the standard and yet breaks people.
//
// Node and Python run as processes of their own; ./test.sh installs the pinned libraries into the user's cache folder.
package clients

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"ssegate/internal/gatetest/built"
	"ssegate/internal/gatetest/service"
)

// The libraries, by the name that Open takes.
const (
	OpenAI           = "openai"             // npm openai; its data is parsed and encoded again
	OpenAIPython     = "openai-python"      // PyPI openai; likewise
	EventSource      = "eventsource"        // npm eventsource; comes back by itself
	Undici           = "undici"             // undici's EventSource; comes back by itself
	Parser           = "eventsource-parser" // on fetch; also below eventsource, the AI SDK and MCP
	FetchEventSource = "fetch-event-source" // @microsoft/fetch-event-source; comes back after errors
	SSEjs            = "sse.js"             // on a small XMLHttpRequest; comes back when told to
)

// All are the names of all libraries.
func All() []string {
	return []string{OpenAI, OpenAIPython, EventSource, Undici, Parser, FetchEventSource, SSEjs}
}

// Options are how to ask and when to stop. The zero value is a GET that is read to its end.
type Options struct {
	// The request. An EventSource has GET and no body; OpenAI's libraries want JSON in the body.
	Method string            `json:"method,omitempty"`
	Header map[string]string `json:"headers,omitempty"`
	Body   string            `json:"body,omitempty"`
	// Types are the named events to listen to besides "message", where a library asks for names (EventSource,
	// Undici, SSEjs).
	Types []string `json:"types,omitempty"`
	// Until and Events end the reading after the event with this data, or after so many events.
	Until  string `json:"until,omitempty"`
	Events int    `json:"events,omitempty"`
	// Reconnects is how often a library that comes back by itself may do so. With 0 the first end is the end.
	Reconnects int `json:"reconnects,omitempty"`
	// Hide hides the tab after so many events and shows it again at once (FetchEventSource sends its request again).
	Hide int `json:"hide,omitempty"`
	// Timeout bounds the whole reading; 0 is a minute. A reading that it ends fails the test.
	Timeout time.Duration `json:"-"`
}

// Event is one thing that the application is handed. Of an error only Error and perhaps Status are set; where a
// library tells of a retry hint by itself (Parser), only Retry is.
type Event struct {
	Type   string `json:"type"` // "message" when unnamed
	Data   string `json:"data"`
	ID     string `json:"id"`     // the last event id, where the library tells it
	Retry  int    `json:"retry"`  // milliseconds
	Error  string `json:"error"`  // what the library threw, or gave up with
	Status int    `json:"status"` // the HTTP status that it gave up with, where the library tells it
}

// Read reads url with a library until it ends, and returns all that the application saw.
func Read(t testing.TB, library, url string, opts Options) []Event {
	t.Helper()
	r := Open(t, library, url, opts)
	var all []Event
	for {
		e, ok := r.Next()
		if !ok {
			return all
		}
		all = append(all, e)
	}
}

// Reader is a reading that goes on while the test does other things. Its methods are for the test's own goroutine.
type Reader struct {
	t       testing.TB
	library string
	cmd     *exec.Cmd
	lines   *bufio.Reader
	stderr  bytes.Buffer
	timer   *time.Timer
	wait    func() error
}

//go:embed read.mjs
var readMJS []byte

//go:embed read_openai.py
var readPython []byte

// Open begins to read url with a library. The reading ends by itself, or with the test.
func Open(t testing.TB, library, url string, opts Options) *Reader {
	t.Helper()
	args, err := command(t, library)
	if err != nil {
		t.Fatalf("clients: %v", err)
	}
	options, err := json.Marshal(opts)
	if err != nil {
		t.Fatalf("clients: %v", err)
	}
	args = append(args, url, string(options))
	r := &Reader{t: t, library: library, cmd: exec.Command(args[0], args[1:]...)}
	r.cmd.Stderr = &r.stderr
	r.cmd.WaitDelay = time.Second
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("clients: %v", err)
	}
	r.lines = bufio.NewReader(out)
	r.wait = sync.OnceValue(r.cmd.Wait)
	if err := r.cmd.Start(); err != nil {
		t.Fatalf("clients: %v", err)
	}
	if opts.Timeout == 0 {
		opts.Timeout = time.Minute
	}
	r.timer = time.AfterFunc(opts.Timeout, func() { _ = r.cmd.Process.Kill() }) // gone already is as good
	t.Cleanup(r.Close)
	return r
}

// Next waits for the next thing that the application sees. It is false at the end of the reading.
func (r *Reader) Next() (Event, bool) {
	r.t.Helper()
	line, err := r.lines.ReadBytes('\n')
	if err != nil { // the end, and nothing is lost: a line is written in one go
		if err := r.wait(); err != nil {
			r.t.Fatalf("clients: %s ended with %v: %s", r.library, err, r.stderr.Bytes())
		}
		return Event{}, false
	}
	var e Event
	if err := json.Unmarshal(line, &e); err != nil {
		r.t.Fatalf("clients: %s said %q: %v", r.library, line, err)
	}
	return e, true
}

// Close ends the reading and returns when its process is gone. It may be called more than once.
func (r *Reader) Close() {
	r.timer.Stop()
	_ = r.cmd.Process.Kill() // gone already is as good
	_ = r.wait()             // so is having been killed
}

// command is the program for a library and its first arguments.
func command(t testing.TB, library string) ([]string, error) {
	dir := t.TempDir()
	if library == OpenAIPython {
		venv, err := service.Venv()
		if err != nil {
			return nil, err
		}
		script := filepath.Join(dir, "read_openai.py")
		return []string{filepath.Join(venv, "bin", "python"), script}, os.WriteFile(script, readPython, 0o600)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, fmt.Errorf("%w: apt-get install nodejs npm (./test.sh does it)", err)
	}
	// A module finds others beside itself only, so the script goes beside a link to what npm installed.
	modules, err := built.Path("clients", "", "internal/gatetest/clients/package-lock.json")
	if err != nil {
		return nil, err
	}
	if err := os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "read.mjs")
	return []string{node, script, library}, os.WriteFile(script, readMJS, 0o600)
}
