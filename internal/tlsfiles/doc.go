// Package tlsfiles is mutual TLS by files: a certificate, its key, and the CA that
// signs the other side's. Files that change are read anew at the next handshake;
// connections that there are go on.
//
// Both sides show a certificate that the CA signed; TLS 1.3 (RFC 8446) is required.
// A server takes every client whose certificate is valid: who has a key may do all
// that the API does. A client takes a server whose certificate is valid and names it
// (RFC 9525): the client says which names those may be. A daemon is both, so a
// certificate of its with an extended key usage (RFC 5280, section 4.2.1.12) has
// serverAuth and clientAuth. The names of a certificate are its subject alternative
// names; the common name is none.
package tlsfiles
