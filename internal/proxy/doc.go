// Package proxy is the way of a request through the engine.
//
// A connection comes in (conn.go), its TLS is terminated with a leaf for the
// one name that everybody agreed on (handshake.go), and each request on it
// becomes an exchange (exchange.go): read, decide, record, send while hashing,
// answer, record the end. What the client speaks is behind the client
// interface (http1.go, http2.go); what is neither, a passthrough tunnel or a
// WebSocket, has a file of its own (tunnel.go, upgrade.go).
//
// # One way in, one way out
//
// Stages return a *refusal; exchange.serve alone answers the client, writes
// the record and counts. The order is fixed:
//
//	a denial is recorded, then answered
//	an allowed request is recorded, then resolved, dialled and sent
//	the end is recorded, then the last bytes of the answer are released
//
// so that no answer can be complete, and no byte can leave, without its record.
// A record that cannot be written turns the answer into 503, or cuts it if it
// has begun.
//
// # Goroutines
//
// One goroutine carries a client's HTTP/1 connection and borrows an upstream
// connection for the time of an exchange. A second one exists only while a
// body of unknown or large size is sent, or a WebSocket or a tunnel is open.
// HTTP/2 is the standard library's server: a goroutine a stream; what it refuses
// by itself is recorded where it writes (h2watch.go). One goroutine of
// the Server looks, about once a second, for clients that have left (left.go).
package proxy
