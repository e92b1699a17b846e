// Package proxy owns the HTTP faces of a node: the client front, the routes,
// pass-through, and the pump that reads an upstream's event stream.
//
// It must not know which driver stands behind a log, registry or bus, nor
// TOML: package gate turns configuration into the values that are declared
// here. It is the only package beside gate that imports fasthttp.
package proxy
