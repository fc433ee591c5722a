package main

import (
	"math"
	"testing"
	"time"
)

func TestALineIsFitted(t *testing.T) {
	var all []sample
	for i := range 100 {
		all = append(all, sample{time.Duration(i) * time.Second, int64(5000 + 70*i + 10*(i%2))})
	}
	at0, slope := line(all)
	if math.Abs(slope-70) > 0.1 || math.Abs(at0-5005) > 5 {
		t.Errorf("%f and %f a second, want 5005 and 70", at0, slope)
	}
}

func TestGrowthIsToldFromAWarmUp(t *testing.T) {
	const mib = 1 << 20
	for _, row := range []struct {
		what  string
		at    func(i int) int64
		grows bool
	}{
		{"flat", func(int) int64 { return 50 * mib }, false},
		{"a warm-up", func(i int) int64 { return min(50, int64(i)) * mib }, false},
		{"up and down", func(i int) int64 { return int64(50+i%7) * mib }, false},
		{"a leak", func(i int) int64 { return int64(50+i/5) * mib }, true},
		{"a slow leak", func(i int) int64 { return 50*mib + int64(i)*160<<10 }, true},
		{"nothing was seen", nil, true},
	} {
		var all []sample
		for i := range 300 {
			if row.at != nil {
				all = append(all, sample{time.Duration(i) * time.Second, row.at(i)})
			}
		}
		if text, grows := growth(all); grows != row.grows {
			t.Errorf("%s: %s, too much: %t", row.what, text, grows)
		}
	}
}

const profile = `goroutine profile: total 5
3 @ 0x1 0x2
#	0x1	net/http.(*conn).serve+0x10	/usr/local/go/src/net/http/server.go:1
#	0x2	main.f+0x20	/x.go:2

1 @ 0x1 0x3
#	0x1	main.g+0x10	/x.go:3

1 @ 0x9
#	0x9	runtime/pprof.writeGoroutine+0x1	/x.go:9
`

func TestGoroutinesAreToldApartByTheirStacks(t *testing.T) {
	const serve, g = "net/http.(*conn).serve < main.f < ", "main.g < "
	now := stacks(profile)
	if len(now) != 2 || now[serve] != 3 || now[g] != 1 {
		t.Fatalf("%v", now)
	}
	if more := beyond(map[string]int{serve: 2, g: 1}, now); len(more) != 1 || more[serve] != 3 {
		t.Errorf("beyond two and one: %v", more)
	}
	if more := beyond(now, now); len(more) != 0 {
		t.Errorf("beyond themselves: %v", more)
	}
}
