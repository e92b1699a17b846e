package discover

import (
	"context"
	"fmt"
	"slices"
)

// Static is a source whose endpoints are written in the configuration.
type Static struct {
	services map[string][]Endpoint
}

var _ Source = (*Static)(nil)

// NewStatic returns a source of these services: the URLs (scheme and
// authority) of each by its name.
func NewStatic(services map[string][]string) *Static {
	s := &Static{services: make(map[string][]Endpoint, len(services))}
	for name, urls := range services {
		list := make([]Endpoint, len(urls))
		for i, u := range urls {
			list[i] = Endpoint{ID: u, URL: u}
		}
		s.services[name] = list
	}
	return s
}

// Watch implements [Source]. A service that is not in the list is an error:
// it will never be.
func (s *Static) Watch(ctx context.Context, service string, update func([]Endpoint)) error {
	list, ok := s.services[service]
	if !ok {
		return fmt.Errorf("discover: no service %q in the static list", service)
	}
	if ctx.Err() != nil {
		return nil
	}
	update(slices.Clone(list))
	<-ctx.Done()
	return nil
}
