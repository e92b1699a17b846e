// Package client is for services that publish through ssegate, and for
// programs that receive what was sent in pieces. It needs nothing but the
// standard library:
//
//	p := client.Publisher{Base: "http://127.0.0.1:8089"}
//	answer, err := p.Send(ctx, client.Message{Type: "progress", Target: client.Target{UserID: "alice"}, Data: map[string]int{"progress": 65}})
//
// A message that may be sent again needs an id of its own: the log takes an id
// once, so that nothing is lost and nothing is there twice.
package client
