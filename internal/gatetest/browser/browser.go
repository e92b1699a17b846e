//go:build unix

// Package browser leads a real Chromium: what a page does behind ssegate shows in the one program that people use it with.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds every wait.
const patience = 30 * time.Second

// Browser is a Chromium with one tab and an empty profile. It is led through the DevTools protocol over two pipes, where a
// message is JSON and a NUL; when the test binary is gone, so are the pipes, and Chromium ends. Its methods are for the
// test's own goroutine.
type Browser struct {
	t       testing.TB
	session string // of the tab
	in      io.Writer

	mu      sync.Mutex
	serial  int
	calls   map[int]chan message
	thrown  []string
	console []string
	ended   error
}

// message is an answer of Chromium's, or an event when it has a method.
type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// Open starts a Chromium, which ends with the test.
func Open(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("browser: %v: apt-get install chromium (./test.sh does it)", err)
	}
	profile := t.TempDir()
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--window-size=1280,1000", "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4, as the flag wants
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its helpers end with it
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &Browser{t: t, in: in, calls: map[int]chan message{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(out) })
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait() // it was killed, and says so
		in.Close()
		out.Close()
		reading.Wait()
		if t.Failed() {
			t.Logf("browser: the page threw %q and said %q; Chromium said:\n%s", b.thrown, b.console, stderr.Bytes())
		}
	})
	var target struct{ TargetID string }
	b.Call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.Call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	b.Call("Runtime.enable", nil, nil)
	b.Call("Page.enable", nil, nil)
	return b
}

// read takes what Chromium says until it says no more.
func (b *Browser) read(r io.Reader) {
	in := bufio.NewReader(r)
	var err error
	for err == nil {
		var line []byte
		if line, err = in.ReadBytes(0); err != nil {
			break
		}
		var m message
		if err = json.Unmarshal(line[:len(line)-1], &m); err != nil {
			break
		}
		b.mu.Lock()
		switch {
		case m.Method == "Runtime.exceptionThrown":
			b.thrown = append(b.thrown, string(m.Params))
		case m.Method == "Runtime.consoleAPICalled":
			b.console = append(b.console, string(m.Params))
		case b.calls[m.ID] != nil:
			b.calls[m.ID] <- m
			delete(b.calls, m.ID)
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = err
	for _, c := range b.calls {
		close(c)
	}
	b.calls = nil
}

// Call does one thing of the DevTools protocol and waits for its result, which may be nil.
func (b *Browser) Call(method string, params, result any) {
	b.t.Helper()
	if err := b.call(method, params, result); err != nil {
		b.t.Fatalf("browser: %s: %v", method, err)
	}
}

func (b *Browser) call(method string, params, result any) error {
	answered := make(chan message, 1)
	b.mu.Lock()
	if b.calls == nil {
		b.mu.Unlock()
		return fmt.Errorf("chromium has ended: %w", b.ended)
	}
	b.serial++
	id := b.serial
	b.calls[id] = answered
	m := map[string]any{"id": id, "method": method}
	if params != nil {
		m["params"] = params
	}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	text, err := json.Marshal(m)
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	select {
	case r, ok := <-answered:
		switch {
		case !ok:
			return errors.New("chromium has ended")
		case r.Error != nil:
			return errors.New(r.Error.Message)
		case result != nil:
			return json.Unmarshal(r.Result, result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Go goes to a page. It does not wait until the page is there; see Until.
func (b *Browser) Go(url string) {
	b.t.Helper()
	b.Call("Page.navigate", map[string]any{"url": url}, nil)
}

// Reload loads the page again, as F5 does.
func (b *Browser) Reload() {
	b.t.Helper()
	b.Call("Page.reload", nil, nil)
}

// Eval runs JavaScript in the page, waits for the promise if it is one, and puts the value into value, which may be nil.
// An error says that the page threw, or is being loaded anew.
func (b *Browser) Eval(expression string, value any) error {
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	err := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &out)
	if err != nil {
		return err
	}
	if e := out.ExceptionDetails; e != nil {
		return fmt.Errorf("%s %s", e.Text, e.Exception.Description)
	}
	if value == nil || len(out.Result.Value) == 0 {
		return nil
	}
	return json.Unmarshal(out.Result.Value, value)
}

// Value is what JavaScript in the page comes to; the test fails if the page throws.
func Value[T any](b *Browser, expression string) (v T) {
	b.t.Helper()
	if err := b.Eval(expression, &v); err != nil {
		b.t.Fatalf("browser: %s: %v", expression, err)
	}
	return v
}

// Until waits for a condition in the page.
func (b *Browser) Until(condition string) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; {
		var yes bool
		err := b.Eval("Boolean("+condition+")", &yes)
		if yes {
			return
		}
		if time.Now().After(end) {
			var text string
			b.Eval("document.body.innerText", &text) // a page that cannot be read has none
			b.t.Fatalf("browser: waited in vain until %s (%v); the page shows:\n%s", condition, err, text)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Click presses the mouse where a person would see the first element that a selector finds.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	var at struct{ X, Y float64 }
	err := b.Eval(fmt.Sprintf(`(() => {
		const e = document.querySelector(%q)
		if (e.disabled) throw new Error('it is disabled')
		e.scrollIntoView({block: 'nearest'})
		const r = e.getBoundingClientRect()
		const x = r.left + r.width / 2, y = r.top + r.height / 2
		if (!e.contains(document.elementFromPoint(x, y))) throw new Error('something else lies over it')
		return {X: x, Y: y}
	})()`, selector), &at)
	if err != nil {
		b.t.Fatalf("browser: click on %s: %v", selector, err)
	}
	for _, what := range []string{"mousePressed", "mouseReleased"} {
		b.Call("Input.dispatchMouseEvent", map[string]any{"type": what, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// Thrown are the exceptions of the page that nobody has caught.
func (b *Browser) Thrown() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.thrown
}
