// Command soak runs the engine's program for a while under everything at once,
// and says what leaked, what was lost and what was wrong.
//
//	go run .                 thirty minutes
//	go run . -for 3m         what CI does
//	go run . -seed 7         the same choices as another run that printed 7
//
// Agents (traffic.go) speak HTTP/1 on kept and on new connections, HTTP/2, gRPC with
// single and streamed messages, WebSocket and SSE; they send and fetch bodies, leave in
// the middle, ask for what no rule allows, speak ambiguously, and send noise for a
// ClientHello. Origins (origins.go) reset, stall, break off and have a certificate of
// nobody; names (names.go) are found late or not at all. The policy changes every few
// seconds, the certificate authority now and then, the log rotates.
//
// # What is checked
//
// While it runs, at each arrival at an origin: the decision about it is in the log
// already. At the end (judge.go):
//
//   - every request has the verdict of a policy that was in force while it was under
//     way, and its client saw that verdict;
//   - what arrived is in the log, what is in the log has its end, and method, digests,
//     lengths and statuses are those that client and origin have;
//   - no connection came to the addresses of names that no rule allows;
//   - `audit verify` takes all segments with the anchor;
//   - no goroutine is left that an idle engine does not have, and resident memory,
//     fitted by a line over the second half, does not grow.
//
// # Where it runs
//
// In a user, network and mount namespace of its own, so that the real program meets a
// resolv.conf and a port 443 that nobody else has. Linux, with user namespaces or as
// root. Nothing is mocked but the world.
package main
