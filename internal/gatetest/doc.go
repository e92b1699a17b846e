// Package gatetest is the world that the end-to-end tests run in: real ssegate
// processes, a backend whose streams a test holds in its hand, and clients
// that say exactly what they got. Outside services come from package service.
//
// Nothing here waits for time to pass: every wait is for an event, and bounded.
package gatetest
