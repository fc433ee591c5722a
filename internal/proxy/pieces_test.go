package proxy

import (
	"net/netip"
	"testing"
)

func TestPiecesAreSmallWithoutRoom(t *testing.T) {
	s := &Server{answers: newBudget[string](2*h2Piece, 2*h2Piece), uploads: newBudget[netip.Addr](1, 1)}
	a := (*answerPages)(&exchange{s: s, c: &conn{s: s, principalID: "a"}})
	first, second := a.piece(), a.piece()
	if len(*first) != h2Piece || len(*second) >= h2Piece {
		t.Errorf("pieces of %d and %d bytes; who has as much as is left gets no more", len(*first), len(*second))
	}
	a.put(second)
	a.put(first)
	if third := a.piece(); len(*third) != h2Piece || s.answers.all != h2Piece {
		t.Errorf("a piece of %d bytes, %d taken", len(*third), s.answers.all)
	}
}
