package main

import "context"

// measure returns the figures of one row for one proxy, in base units: seconds,
// bytes, seconds for a byte.
type measure func(ctx context.Context, l *lab, p *running) ([]float64, error)

// figure is one line of the table.
type figure struct {
	name   string
	unit   string
	scale  float64 // from base units
	digits int
	target target
	short  string // its name in the README, "" where it is not there
}

// row is a measurement that gives one or more figures.
type row struct {
	name    string
	run     measure
	figures []figure
	fresh   bool // each proxy in a process of its own
	once    bool // in the first pass alone
	added   bool // less what a direct connection takes
	who     func(p peer) bool
}

func allRows() []row {
	const us, gb, ms = 1e6, 1e9, 1e3
	whole := func(p peer) bool { return !p.small }
	overH2 := func(p peer) bool { return p.h2 }
	ofBest := func(ratio float64) target { return target{ratio: ratio} }
	most := func(v float64) target { return target{most: v} }
	cpu := func(name, short string, t target, digits int) []figure {
		return []figure{{name: name, unit: "us CPU", scale: us, digits: digits, target: t, short: short}}
	}
	bytes := func(name, short string, t target, each float64) []figure {
		return []figure{{name: name, unit: "CPU-s/GB", scale: gb / each, digits: 2, target: t, short: short}}
	}
	return []row{
		{name: "keep-alive 1 KiB, 16 connections", run: keepAlive(16, small),
			figures: cpu("keep-alive, 1 KiB each way, 16 connections", "", ofBest(0.75), 1)},
		{name: "keep-alive 1 KiB, 64 connections", run: keepAlive(64, small),
			figures: cpu("keep-alive, 1 KiB each way, 64 connections", "keep-alive request, 1 KiB, 64 connections, µs", ofBest(0.75), 1)},
		{name: "new connection, origin pooled", run: newConnections(ordinary),
			figures: cpu("new connection for each request, origin pooled", "new connection, origin pooled, µs", ofBest(0.65), 0)},
		{name: "new connection, origin closing", run: newConnections(shortLive), who: whole,
			figures: cpu("new connection for each request, origin closes and offers no tickets", "new connection, origin closing, µs", ofBest(0.6), 0)},
		{name: "first sight", run: firstSight, fresh: true, who: whole,
			figures: cpu("first sight of a host: certificate made, no connection or session to its origin", "first sight of a host, µs", ofBest(0.4), 0)},
		{name: "keep-alive 64 KiB", run: keepAlive(16, medium),
			figures: bytes("keep-alive, 64 KiB each way, 16 connections", "64 KiB each way, CPU-s/GB", ofBest(0.85), 2*medium)},
		{name: "16 MiB down", run: bulk(ordinary, false), who: whole,
			figures: bytes("16 MiB down, 4 connections", "16 MiB down, CPU-s/GB", ofBest(0.95), 1)},
		{name: "16 MiB up", run: bulk(ordinary, true), who: whole,
			figures: bytes("16 MiB up, 4 connections", "16 MiB up, CPU-s/GB", ofBest(0.95), 1)},
		{name: "h2 64 streams", run: streams(64), who: overH2,
			figures: cpu("HTTP/2, 1 KiB each way, 64 streams of one connection", "HTTP/2 request, 64 streams, µs", target{ratio: 0.7, peer: reverseName}, 1)},
		{name: "gRPC unary", run: unary(64), who: overH2,
			figures: cpu("gRPC call, 1 KiB each way, 64 at once on one connection", "gRPC call, 1 KiB each way, µs", target{}, 1)},
		{name: "gRPC stream", run: bidirectional(16), who: overH2,
			figures: cpu("gRPC stream, messages of 1 KiB echoed, 16 calls on one connection, for each message", "gRPC message in a stream, µs", target{}, 1)},
		{name: "SSE", run: serverSent, added: true, who: whole, figures: []figure{
			{name: "SSE, first event, median", unit: "ms added", scale: ms, digits: 2, target: most(0.25), short: "first server-sent event, median ms added"},
			{name: "SSE, first event, 99th percentile", unit: "ms added", scale: ms, digits: 2},
			{name: "SSE, later events, median", unit: "ms added", scale: ms, digits: 2, target: most(0.25)},
			{name: "SSE, later events, 99th percentile", unit: "ms added", scale: ms, digits: 2},
		}},
		{name: "half load", run: halfLoad, figures: []figure{
			{name: "keep-alive at half load, 64 connections, median", unit: "ms added", scale: ms, digits: 3},
			{name: "keep-alive at half load, 64 connections, 99th percentile", unit: "ms added", scale: ms, digits: 3, target: most(1), short: "99th percentile at half load, ms added"},
		}},
		{name: "WebSocket", run: websocketEcho(small), who: whole,
			figures: cpu("WebSocket, messages of 1 KiB echoed, 16 connections, for each message", "WebSocket message of 1 KiB, µs", ofBest(1), 1)},
		{name: "tunnel", run: bulk(unread, false), who: whole,
			figures: bytes("passthrough tunnel, 16 MiB down, 4 connections", "passthrough tunnel, CPU-s/GB", ofBest(1), 1)},
		{name: "idle", run: idle, fresh: true,
			figures: []figure{{name: "idle intercepted connection, of 2 000", unit: "KiB resident", scale: 1.0 / 1024, digits: 1, target: most(20), short: "idle intercepted connection, KiB"}}},
		{name: "huge body", run: peak, fresh: true, once: true, who: whole,
			figures: []figure{{name: "one very large body down, then up: peak", unit: "MiB resident", scale: 1.0 / (1 << 20), digits: 1, target: most(64), short: "1 GiB each way, peak MiB resident"}}},
	}
}
