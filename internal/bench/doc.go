// Command bench measures what the engine costs beside other proxies, in one
// run, and prints a Markdown table.
//
//	go run .                  all of it, about ten minutes
//	go run . -quick           short windows and one pass: to see that it works
//	go run . -o BENCH.md      the table also goes into that file
//	go run . -short README.md and in short between the marks of that one
//	go run . -only keep-alive -peers HAProxy
//	                          rows and peers that match a regular expression
//	go run . -only growth     what a request costs by how much there is of something
//	go run . -floor           beside the least that a proxy in Go can do
//	go run . -only 'keep-alive 1 KiB' -calls
//	                          also system calls and wake-ups of each exchange
//	go run . -also ./other    beside another build of the engine
//	go run . -profile cpu.out a CPU profile of the engine under the first row
//
// # How it measures
//
// Each proxy is a process pinned to one core (sched_setaffinity; a Go program
// sees one core and takes GOMAXPROCS=1 from it, HAProxy has one thread). This
// process is origin and load generator at once and is pinned to another core,
// so that neither takes time from the proxy. Both speak a small HTTP/1.1 of
// their own over crypto/tls, which costs less than the proxies under test.
//
// The load is closed: each connection sends its next request when the answer to
// the last one has been read. What is reported is the CPU time of the proxy's
// process, user and system, by the kernel's own clock for that process
// (clock_gettime(2) on clock_getcpuclockid(3)): nanoseconds, all threads, those
// that ended included, where /proc/PID/stat has ticks of 10 ms and
// /proc/PID/schedstat only the first thread. It is read at the start and the end
// of a window in the middle of steady load and divided by the exchanges that
// ended between.
//
// Passes are interleaved: in each pass every proxy runs every row once, in an
// order that rotates. A cell is the median of the passes; a ratio is the median
// of the ratios to the reference within each pass, so that a host that is busy
// for a while disturbs both sides of it. The idle proxies of a pass wait in
// epoll and cost nothing.
//
// # What is the same for every proxy
//
// TLS 1.3 on both sides, X25519, AES-128-GCM, ECDSA P-256 leaves of a P-256
// authority, session resumption on, upstream connections verified and reused.
// The harness refuses to report a proxy whose connections were negotiated
// otherwise. In rows with new connections the client resumes nothing: each is a
// full handshake. The origin of most rows keeps connections and offers tickets;
// that of one row closes after each answer and offers none. A first sight has a
// name that the proxy has not seen: a certificate to make, no connection in its
// pool and no session to resume. gRPC is HTTP/2 on both sides; the row HTTP/2 has
// an origin that speaks HTTP/1.1.
//
// # Half load
//
// What a proxy gets through in a closed loop is measured, and then half of that
// begun at random times (package function halfLoad), through it and without it:
// the difference of the quantiles is what it adds. Origin and load share a core,
// so that at more than half they would wait for each other.
//
// # Targets
//
// A ratio is to the best peer of the same run, or to one that the target names;
// the median of the ratios within each pass. The verdict is printed, and nothing
// fails by it: a duration is no test.
//
// # The log
//
// Three things are measured without a proxy, in the same directory, since a
// disk is as fast as its directory: one writer that syncs after each record, and a strict
// log under 32 and 128 requests in flight, which has several records for each
// sync. What a log costs of an exchange cannot be had by turning it off, since the
// engine forwards nothing without a record. It is put together of two: the
// exchange with its log in a file, less the same with its log on /dev/null, which
// leaves encoding and chaining in both; and the CPU time of these, in this process.
//
// # What is not the same
//
// The engine judges each request by a policy, hashes both bodies and commits two
// records of its chain to a file (durability "written") before it goes on. The
// others do none of that and write no log, so every ratio is against less work.
//
// HAProxy cannot intercept what is inside a CONNECT: with generate-certificates
// it gets the TLS connection itself, as if redirected, and mints by SNI. It is
// spared one request and its answer on each new connection. It is told where to by
// the port, so it has one for each origin; the one for a first sight sends the
// client's SNI. With a certificate that it has made it negotiates no ALPN, so it
// has no rows with HTTP/2, and the first handshake for a name fails, so that its
// first sight is two attempts.
//
// In a passthrough tunnel the engine reads the ClientHello, checks its name and
// writes two records; nobody else looks into it. All splice by the kernel where
// they can.
//
// # What it is not
//
// It asserts nothing: a duration is no test. Nothing leaves the machine's
// loopback, except that a missing haproxy is installed by apt where that can
// be done. Linux only.
package main
