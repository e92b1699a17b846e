package demo

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

const chromium = "/usr/bin/chromium"

// browser is a real Chromium with one tab, led through the DevTools protocol
// over two pipes: a message is JSON and a NUL.
type browser struct {
	t       testing.TB
	session string // of the tab
	in      io.Writer

	mu      sync.Mutex
	serial  int
	calls   map[int]chan reply
	console []string // what went wrong in the page
	ended   error
}

type reply struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// openBrowser starts Chromium with an empty profile; it is ended with the test.
func openBrowser(t testing.TB) *browser {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("this test looks at the page in a real browser: install Chromium (apt-get install chromium): %v", err)
	}
	profile := t.TempDir()
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--user-data-dir="+profile, "--window-size=1280,1000", "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4, as the flag says
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end its helpers with it
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, in: ourOut, calls: map[int]chan reply{}}
	var wg sync.WaitGroup
	wg.Go(func() { b.read(ourIn) })
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait() // it was killed, and says so
		ourOut.Close()
		ourIn.Close()
		wg.Wait()
		if t.Failed() && b.ended != nil {
			t.Logf("Chromium wrote:\n%s", stderr.String())
		}
	})

	var target struct{ TargetID string }
	b.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	b.call("Runtime.enable", nil, nil)
	b.call("Page.enable", nil, nil)
	return b
}

// read takes what Chromium says until it says no more.
func (b *browser) read(r io.Reader) {
	in := bufio.NewReader(r)
	var err error
	for err == nil {
		var line []byte
		if line, err = in.ReadBytes(0); err != nil {
			break
		}
		var m reply
		if err = json.Unmarshal(line[:len(line)-1], &m); err != nil {
			break
		}
		b.mu.Lock()
		switch {
		case m.Method == "Runtime.exceptionThrown":
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

// call does one thing of the DevTools protocol and waits for its result.
func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	if err := b.try(method, params, result); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

func (b *browser) try(method string, params, result any) error {
	answered := make(chan reply, 1)
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
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
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

// open goes to a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval runs JavaScript in the page and returns its value. An error says that
// the page threw, or is being loaded anew.
func (b *browser) eval(expression string, value any) error {
	var out struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	err := b.try("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &out)
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

// text is the text of the first element that a selector finds.
func (b *browser) text(selector string) string {
	b.t.Helper()
	var s string
	if err := b.eval(fmt.Sprintf("document.querySelector(%q)?.textContent", selector), &s); err != nil {
		b.t.Fatalf("%s: %v", selector, err)
	}
	return s
}

// until waits for a condition in the page.
func (b *browser) until(what, condition string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		var yes bool
		err := b.eval("Boolean("+condition+")", &yes)
		if yes {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("waited in vain until %s (%v); the log:\n%s", what, err, b.log())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// log is what the page has noted, newest first.
func (b *browser) log() string {
	var s string
	b.eval("document.querySelector('#log').innerText", &s)
	return s
}

// click presses the mouse where a person would see the element.
func (b *browser) click(selector string) {
	b.t.Helper()
	var at struct{ X, Y float64 }
	err := b.eval(fmt.Sprintf(`(() => {
		const e = document.querySelector(%q)
		if (e.disabled) throw new Error('it is disabled')
		e.scrollIntoView({block: 'nearest'})
		const r = e.getBoundingClientRect()
		const x = r.left + r.width / 2, y = r.top + r.height / 2
		if (!e.contains(document.elementFromPoint(x, y))) throw new Error('something else lies over it')
		return {X: x, Y: y}
	})()`, selector), &at)
	if err != nil {
		b.t.Fatalf("click on %s: %v; the log:\n%s", selector, err, b.log())
	}
	for _, what := range []string{"mousePressed", "mouseReleased"} {
		b.call("Input.dispatchMouseEvent", map[string]any{"type": what, "x": at.X, "y": at.Y, "button": "left", "clickCount": 1}, nil)
	}
}

// exceptions are those that the page has thrown and nobody has caught.
func (b *browser) exceptions() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.console
}
