package policy

import (
	"hash/maphash"
	"maps"
	"slices"
	"strings"
)

// hostTable is a hash table of exact names. With many hosts, what a decision
// costs is memory that is not in a cache, so it is made once and dense: a slot
// is four bytes, the nodes lie side by side, and so do the texts that are
// compared, in the same order. The seed is of the process: no agent can choose
// names that collide.
type hostTable struct {
	seed  maphash.Seed
	slots []uint32 // index in nodes plus one, below the tag of the name; 0 is free
	nodes []hostNode
	cards []card // of the nodes, in their order
}

// A slot's upper bits tell most other names apart without a look at the node.
const (
	indexBits = 20 // a million names
	indexMask = 1<<indexBits - 1
)

// pack makes the table. beside gives the rules of patterns that match a name too.
func pack(exact map[string]*hostNode, beside func(name string) []*rule) hostTable {
	t := hostTable{seed: maphash.MakeSeed(), nodes: make([]hostNode, 0, len(exact)), cards: make([]card, len(exact))}
	shared := map[outcomeKey]*outcome{}
	size := 1
	for size <= len(exact)+len(exact)/2 { // a free slot ends a search
		size *= 2
	}
	t.slots = make([]uint32, size)
	var texts, words strings.Builder
	for _, name := range slices.Sorted(maps.Keys(exact)) {
		node := exact[name]
		texts.WriteString(name)
		texts.WriteString(node.root.literal)
		c := &t.cards[len(t.nodes)]
		*c = newCard(node, beside(name))
		share(c, shared)
		words.WriteString(c.words)
		t.nodes = append(t.nodes, *node)
		i, tag := t.start(name)
		for t.slots[i] != 0 {
			i = (i + 1) % uint32(size)
		}
		t.slots[i] = tag | uint32(len(t.nodes))
	}
	all, said := texts.String(), words.String()
	for i := range t.nodes {
		c := &t.cards[i]
		c.words, said = said[:len(c.words)], said[len(c.words):]
		n := &t.nodes[i]
		n.pattern, all = all[:len(n.pattern)], all[len(n.pattern):]
		n.root.literal, all = all[:len(n.root.literal)], all[len(n.root.literal):]
	}
	return t
}

// start returns the slot where the search for a name begins, and its tag.
func (t *hostTable) start(name string) (slot, tag uint32) {
	h := maphash.String(t.seed, name)
	return uint32(h>>32) & uint32(len(t.slots)-1), uint32(h) &^ indexMask
}

// card returns the card of a name, or nil.
func (t *hostTable) card(name string) *card {
	if len(t.nodes) == 0 {
		return nil
	}
	i, tag := t.start(name)
	for {
		s := t.slots[i]
		if s == 0 {
			return nil
		}
		if s&^indexMask == tag {
			if c := &t.cards[s&indexMask-1]; string(c.text[:c.host]) == name {
				return c
			}
		}
		i = (i + 1) & uint32(len(t.slots)-1)
	}
}

func (t *hostTable) find(name string) *hostNode {
	if len(t.nodes) == 0 {
		return nil
	}
	i, tag := t.start(name)
	for {
		s := t.slots[i]
		if s == 0 {
			return nil
		}
		if s&^indexMask == tag {
			if n := &t.nodes[s&indexMask-1]; n.pattern == name {
				return n
			}
		}
		i = (i + 1) & uint32(len(t.slots)-1)
	}
}
