package proxy

import (
	"net/http"
	"reflect"
	"testing"

	"github.com/arpitcoder/aegrail-engine/internal/http1"
)

func TestFieldsAreCopiedEachToItsOwnList(t *testing.T) {
	page := []byte("content-typea/bX-Two1x-two2Emptylast3")
	f := func(name, value string) (out http1.Field) {
		out.Name, page = page[:len(name)], page[len(name):]
		out.Value, page = page[:len(value)], page[len(value):]
		return out
	}
	whole := page
	h := http.Header{"Last": {"0"}}
	copyFields(h, []http1.Field{f("content-type", "a/b"), f("X-Two", "1"), f("x-two", "2"), f("Empty", ""), f("last", "3")})
	clear(whole) // what is copied does not go with the page
	h.Add("Content-Type", "c/d")
	want := http.Header{"Content-Type": {"a/b", "c/d"}, "X-Two": {"1", "2"}, "Empty": {""}, "Last": {"0", "3"}}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("got %q, want %q", h, want)
	}
	copyFields(h, nil)
	if !reflect.DeepEqual(h, want) {
		t.Errorf("nothing copied: %q", h)
	}
}
