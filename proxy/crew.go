package proxy

import "sync"

// A crew is a WaitGroup that may be joined while somebody waits for it: who
// comes too late is not waited for. The zero crew is ready.
type crew struct {
	mu   sync.Mutex
	wg   sync.WaitGroup
	late bool // somebody waits already
}

// join counts the caller in, if it is not too late, until leave.
func (c *crew) join() (counted bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.late {
		c.wg.Add(1)
	}
	return !c.late
}

// leave is told what join said.
func (c *crew) leave(counted bool) {
	if counted {
		c.wg.Done()
	}
}

// Go runs f in a goroutine of the crew.
func (c *crew) Go(f func()) {
	counted := c.join()
	go func() {
		defer c.leave(counted)
		f()
	}()
}

// Wait waits until all have left.
func (c *crew) Wait() {
	c.mu.Lock()
	c.late = true
	c.mu.Unlock()
	c.wg.Wait()
}
