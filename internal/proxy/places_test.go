package proxy

import (
	"net/netip"
	"strconv"
	"testing"
)

// Each of many takes all that it can get, before or after it has said who it is,
// and who comes after them is let in.
func TestHoweverManyTakeWhatTheyCanThereIsAPlaceForWhoComesNext(t *testing.T) {
	for name, says := range map[string]bool{"they say nothing": false, "they say who they are": true} {
		t.Run(name, func(t *testing.T) {
			s := &Server{limits: Limits{Connections: 1024}.withDefaults(), places: places{conns: make(map[*conn]struct{}), byClient: make(map[netip.Addr]share)}}
			s.tallies.of = make(map[string]*tally)
			var in []*conn
			take := func(i int) bool {
				c := &conn{s: s, principalID: strconv.Itoa(i)}
				c.flow.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1)
				if !s.enter(c) {
					return false
				}
				if says {
					if c.tally = s.tallies.join(c.principalID, s.known(c)); c.tally == nil {
						s.forget(c)
						return false
					}
				}
				in = append(in, c)
				return true
			}
			for i := range 8 {
				had := 0
				for take(i) {
					had++
				}
				if had == 0 || had > 256 || i == 0 && had != 256 {
					t.Errorf("the %d. has %d of 1024", i+1, had)
				}
			}
			for _, c := range in {
				s.forget(c)
			}
			if s.unknown != 0 || len(s.conns) != 0 || len(s.byClient) != 0 || len(s.tallies.of) != 0 {
				t.Errorf("what is left when all have gone: %d, %v, %v", s.unknown, s.byClient, s.tallies.of)
			}
		})
	}
}
