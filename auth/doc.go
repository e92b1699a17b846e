// Package auth owns who a request comes from and what that one may do: it
// verifies JSON Web Tokens (by a shared secret, public keys in PEM files, or a
// JWKS address whose keys change), API keys of services and one-time tickets,
// and turns them into an Identity with patterns of topics.
//
// It must not know streams, frames or how topics are kept, and it logs
// nothing: it returns errors that say what is wrong and never hold a token, a
// key or a ticket.
package auth
