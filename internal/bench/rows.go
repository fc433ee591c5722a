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
	target string
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
	line := func(name, unit string, scale float64, digits int, target string) []figure {
		return []figure{{name, unit, scale, digits, target}}
	}
	return []row{
		{name: "keep-alive 1 KiB, 16 connections", run: keepAlive(16, small),
			figures: line("keep-alive, 1 KiB each way, 16 connections", "us CPU", us, 1, "ratio 0.90")},
		{name: "keep-alive 1 KiB, 64 connections", run: keepAlive(64, small),
			figures: line("keep-alive, 1 KiB each way, 64 connections", "us CPU", us, 1, "ratio 0.90")},
		{name: "new connection", run: newConnections,
			figures: line("new connection for each request, origin pooled", "us CPU", us, 0, "")},
		{name: "keep-alive 64 KiB", run: keepAlive(16, medium),
			figures: line("keep-alive, 64 KiB each way, 16 connections", "CPU-s/GB", gb/(2*medium), 2, "")},
		{name: "16 MiB down", run: bulk(false), who: whole,
			figures: line("16 MiB down, 4 connections", "CPU-s/GB", gb, 2, "")},
		{name: "16 MiB up", run: bulk(true), who: whole,
			figures: line("16 MiB up, 4 connections", "CPU-s/GB", gb, 2, "")},
		{name: "h2 64 streams", run: streams(64), who: func(p peer) bool { return p.h2 },
			figures: line("HTTP/2, 1 KiB each way, 64 streams of one connection", "us CPU", us, 1, "")},
		{name: "SSE", run: serverSent, added: true, who: whole, figures: []figure{
			{"SSE, first event, median", "ms added", ms, 2, "1"},
			{"SSE, first event, 99th percentile", "ms added", ms, 2, ""},
			{"SSE, later events, median", "ms added", ms, 2, "1"},
			{"SSE, later events, 99th percentile", "ms added", ms, 2, ""},
		}},
		{name: "WebSocket", run: websocketEcho(small), who: whole,
			figures: line("WebSocket, messages of 1 KiB echoed, 16 connections, for each message", "us CPU", us, 1, "")},
		{name: "idle", run: idle, fresh: true,
			figures: line("idle intercepted connection", "KiB resident", 1.0/1024, 1, "24")},
		{name: "huge body", run: peak, fresh: true, once: true, who: whole,
			figures: line("one very large body down, then up: peak", "MiB resident", 1.0/(1<<20), 1, "64")},
	}
}
