package discover

import (
	"context"
	"errors"
)

// Endpoint is one address of an upstream service.
type Endpoint struct {
	ID  string // stable while the endpoint lives; URL where there is no other
	URL string // scheme and authority, e.g. http://10.0.0.7:8000
}

// Peer is another ssegate node as discovery sees it.
type Peer struct {
	ID        string // node id
	Advertise string // public base URL, "" where none
	Internal  string // address of the internal listener, "" where none
}

// ErrNoEndpoint says that a service has no endpoint at all now.
var ErrNoEndpoint = errors.New("discover: no endpoint")

// Source finds the endpoints of a service and follows their changes.
type Source interface {
	// Watch calls update with the full list, first as soon as it is known
	// and then at each change, until ctx is done; calls come one at a time.
	// While the source cannot be reached the last list stands (no call). It
	// returns nil when ctx ended it, an error only when it can never work.
	Watch(ctx context.Context, service string, update func([]Endpoint)) error
}
