// Package race tells tests whether the race detector is on. It is for tests that
// work off thousands of cases in one goroutine, where the detector has next to
// nothing to find and makes each case ten times dearer: with it they take a part of
// the cases, without it, as `make test` runs them, all.
package race

// Step is how far a loop over cases goes at a time: 1, and n under the detector.
func Step(n int) int {
	if Enabled {
		return n
	}
	return 1
}
