package main

import (
	"fmt"
	"math"
	"time"
)

// sample is what a process had in memory at a time.
type sample struct {
	at    time.Duration
	bytes int64
}

// line fits samples by least squares: bytes at the beginning, and bytes a second.
func line(all []sample) (at0, slope float64) {
	n := float64(len(all))
	if n < 2 {
		return math.NaN(), math.NaN()
	}
	var x, y, xx, xy float64
	for _, s := range all {
		t, b := s.at.Seconds(), float64(s.bytes)
		x, y, xx, xy = x+t, y+b, xx+t*t, xy+t*b
	}
	slope = (n*xy - x*y) / (n*xx - x*x)
	return (y - slope*x) / n, slope
}

// warmUp is the part of a run that is left out.
const warmUp = 2 // one in so many

// mayGrow is how much the line may rise in what is left of a run, beside a tenth
// of what it begins with: the collector's pace, and buffers of the busiest moment.
const mayGrow = 12 << 20 // 12 MiB

// growth says how resident memory went, and whether that is too much.
func growth(all []sample) (text string, tooMuch bool) {
	warm := all[len(all)/warmUp:]
	at0, slope := line(warm)
	if math.IsNaN(slope) {
		return "too few samples of memory", true
	}
	span := warm[len(warm)-1].at - warm[0].at
	begins := at0 + slope*warm[0].at.Seconds()
	rise := slope * span.Seconds()
	most := int64(0)
	for _, s := range all {
		most = max(most, s.bytes)
	}
	const mib = 1 << 20
	return fmt.Sprintf("resident %.1f MiB after the warm-up, at most %.1f; slope %+.3f MiB/h, which is %+.2f MiB in %.0f s (%d samples; limit %+.1f)",
		begins/mib, float64(most)/mib, slope*3600/mib, rise/mib, span.Seconds(), len(warm), (mayGrow+begins/10)/mib), rise > mayGrow+begins/10
}
