package proxy

import "testing"

func TestPiecesAreSmallWithoutRoom(t *testing.T) {
	all := newBudget[string](2*h2Piece, 2*h2Piece)
	a := &room[string]{all, "a"}
	first, second := takePiece(a), takePiece(a)
	if len(*first) != h2Piece || len(*second) >= h2Piece {
		t.Errorf("pieces of %d and %d bytes; who has as much as is left gets no more", len(*first), len(*second))
	}
	givePiece(a, second)
	givePiece(a, first)
	if third := takePiece(a); len(*third) != h2Piece || all.all != h2Piece {
		t.Errorf("a piece of %d bytes, %d taken", len(*third), all.all)
	}
}
