package main

import (
	"fmt"
	"strings"
)

// service is what a port of the origin does.
type service int

const (
	pooled   service = iota // HTTP/1.1; keeps connections and offers tickets
	closing                 // the same; closes after each answer and offers none
	called                  // HTTP/2 by net/http, for gRPC
	services                // how many ports there are

	// What proxies that are told where to by the port they listen on have a
	// port of their own for, too.
	pinned // pooled, not to be intercepted
	seen   // pooled, under many names
	ways
)

// place is where a connection of the load goes: a name, and a service behind it.
type place struct {
	host    string
	service service
}

// port is the origin's port for what is at the place.
func (p place) port() service {
	if p.service >= services {
		return pooled
	}
	return p.service
}

// Names that no DNS knows; under the last there are many.
const (
	host        = "origin.test"
	closingHost = "closing.test" // a name of its own: HAProxy makes a certificate anew when a name comes to another port
	pinnedHost  = "pinned.test"
	seenDomain  = "seen.test"
)

// seenPlaces is how many there are: below the engine's budget for mints of one
// agent in one go, which is 1024.
const seenPlaces = 1000

var (
	ordinary  = place{host, pooled}
	shortLive = place{closingHost, closing}
	remote    = place{host, called}
	unread    = place{pinnedHost, pinned}
)

// seenPlace is one of many names of the origin.
func seenPlace(i int) place { return place{fmt.Sprintf("h%04d.%s", i, seenDomain), seen} }

// authority is how a request names a place.
func (l *lab) authority(p place) string { return p.host + ":" + l.origin.port(p.port()) }

// hostsText is the /etc/hosts of a proxy that resolves for itself.
func hostsText() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1 localhost %s %s %s\n", host, closingHost, pinnedHost)
	for i := range seenPlaces {
		fmt.Fprintf(&b, "127.0.0.1 %s\n", seenPlace(i).host)
	}
	return []byte(b.String())
}
