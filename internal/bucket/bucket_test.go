package bucket

import (
	"fmt"
	"testing"
	"time"
)

// noon is any time.
func noon() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC) }

func TestABucketFillsAgainAndAFloodIsNewsOnce(t *testing.T) {
	b, now := New[string](Rate{PerSecond: 1, Burst: 2}, 10), noon()
	for i, want := range []struct {
		after    time.Duration
		ok, news bool
	}{
		{0, true, false},
		{0, true, false},
		{0, false, true},
		{0, false, false},
		{time.Second, true, false},
		{0, false, true},
		{time.Hour, true, false},
		{0, true, false},
		{-time.Hour, false, true}, // a clock that was set back gives nothing
		{time.Second, true, false},
	} {
		now = now.Add(want.after)
		if ok, news := b.Take("pod", now); ok != want.ok || news != want.news {
			t.Errorf("call %d: %v, %v; want %v, %v", i+1, ok, news, want.ok, want.news)
		}
	}
	if ok, _ := b.Take("another", now); !ok {
		t.Error("another caller pays for the flood")
	}
}

func TestNobodyMayWithoutARate(t *testing.T) {
	if ok, _ := new(Buckets[int]).Take(1, noon()); ok {
		t.Error("the zero value gives a token")
	}
	if ok, _ := New[int](Rate{PerSecond: 1}, 1).Take(1, noon()); ok {
		t.Error("a bucket without room gives a token")
	}
}

func TestAFineIsOwed(t *testing.T) {
	b, now := New[string](Rate{PerSecond: 1, Burst: 2}, 1), noon()
	took := func(key string) bool { ok, _ := b.Take(key, now); return ok }
	if !took("known") || !took("beyond") {
		t.Fatal("the first call is refused")
	}
	b.Fine("known", 100)
	b.Fine("beyond", 2)
	if now = now.Add(2 * time.Second); took("known") || !took("beyond") {
		t.Error("after two seconds: the one owes two tokens and more, the other nothing")
	}
	if now = now.Add(time.Second); !took("known") {
		t.Error("more is owed than the burst")
	}
}

func TestBucketsAreBounded(t *testing.T) {
	const most = 100
	b, now := New[string](Rate{PerSecond: 1, Burst: 2}, most), noon()
	for i := range most {
		b.Take(fmt.Sprint("p", i), now)
	}
	took := 0
	for i := range 10 {
		if ok, _ := b.Take(fmt.Sprint("more", i), now); ok {
			took++
		}
	}
	if took != 2 || b.Len() != most {
		t.Errorf("%d tokens for all beyond %d callers, want their burst of 2", took, b.Len())
	}
	now = now.Add(500 * time.Millisecond)
	if ok, _ := b.Take("more", now); ok {
		t.Error("room was made for a caller while nobody's bucket is full")
	}
	now = now.Add(2 * time.Second)
	if ok, _ := b.Take("more", now); !ok || b.Len() != 1 {
		t.Errorf("%d buckets are kept, want the one that is in use", b.Len())
	}
}

func TestAFloodLooksThroughTheBucketsOnceASecond(t *testing.T) {
	b, now := New[int](Rate{PerSecond: 1, Burst: 1}, 1), noon()
	b.Take(0, now)
	now = now.Add(600 * time.Millisecond)
	b.Take(1, now) // looks, and finds nothing that is full
	now = now.Add(600 * time.Millisecond)
	b.Take(2, now) // 0 is full by now
	if b.of[0] == nil {
		t.Error("the buckets were looked through again within a second")
	}
	now = now.Add(600 * time.Millisecond)
	if b.Take(3, now); b.of[0] != nil || b.of[3] == nil {
		t.Error("what is full again is not forgotten")
	}
}
