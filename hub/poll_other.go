//go:build !linux

package hub

import "net"

// TakesOver says that Hold takes connections over by their descriptor.
const TakesOver = false

// A poller holds no connections where there is no epoll.
type poller struct{}

func newPoller(*Hub) (*poller, error) { return &poller{}, nil }

func (p *poller) close() {}

func (h *Hub) holdPolled(net.Conn) Conn { return nil }

// arrived cannot be known here.
func arrived(net.Conn) bool { return true }

// Watch does nothing where there is no epoll set.
func (h *Hub) Watch(net.Conn, func()) (stop func()) { return func() {} }
