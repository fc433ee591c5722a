package http1

import "sync"

// Page sizes. A head begins in the smallest page and moves up as it grows; the
// largest is the cap on a head. Bodies that are more than what is left of the
// head's page are read through a page of the largest size, which takes four TLS
// records.
const (
	smallPage  = 4 << 10
	middlePage = 16 << 10
	largePage  = MaxHead
)

type page struct{ data []byte }

// The pools are the package's only shared state. They hold nothing that anybody
// can observe: a page's content is never read before it was written.
var (
	smallPages  = sync.Pool{New: func() any { return &page{make([]byte, smallPage)} }}
	middlePages = sync.Pool{New: func() any { return &page{make([]byte, middlePage)} }}
	largePages  = sync.Pool{New: func() any { return &page{make([]byte, largePage)} }}
)

// pageSize returns the size of the pages that have room for n bytes.
func pageSize(n int) int {
	switch {
	case n <= smallPage:
		return smallPage
	case n <= middlePage:
		return middlePage
	}
	return largePage
}

// pages returns the pool of the pages that have room for n bytes. n is at most largePage.
func pages(n int) *sync.Pool {
	switch {
	case n <= smallPage:
		return &smallPages
	case n <= middlePage:
		return &middlePages
	}
	return &largePages
}

func getPage(n int) *page { return pages(n).Get().(*page) }

func putPage(p *page) {
	if p != nil {
		pages(len(p.data)).Put(p)
	}
}
