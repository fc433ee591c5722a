package admission

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
)

// unfinished is a body that has come but for its end, until that is let go.
type unfinished struct {
	io.Reader
	end chan struct{}
}

func (u unfinished) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err == io.EOF {
		<-u.end
	}
	return n, err
}

// answerTo is what handler answers to a text from address. Its length is said, as the API server does, unless it is negative.
func answerTo(handler http.Handler, address string, length int, body io.Reader) string {
	r := httptest.NewRequest(http.MethodPost, PathMutatePod, body)
	r.RemoteAddr, r.ContentLength = address, int64(length)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return fmt.Sprint(w.Code, strings.Contains(w.Body.String(), `"allowed":true`))
}

func TestLongQuestionsLeaveRoomForShortOnesAndAllAreBounded(t *testing.T) {
	var r room
	fill := func(n int) (held int) {
		for i := range 1000 { // addresses
			for r.tryTake(fmt.Sprint(n, i), n) == nil {
				held += n
			}
		}
		return held
	}
	long, short := fill(maxReview), fill(smallQuestion)
	if long != maxHeldByLarge || long+short != maxHeld {
		t.Errorf("long ones hold %d, short ones %d", long, short)
	}
	for range long / maxReview {
		r.give("1", maxReview)
	}
	if r.held != short || r.large != 0 {
		t.Errorf("when the long ones are gone, %d are held, %d by long ones", r.held, r.large)
	}
}

func TestWhatSlowSendersHoldIsBounded(t *testing.T) {
	handler, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	good := reviewOf(t, question(t, "CREATE pods", "support", podOf(t, simple), nil))
	ask := func(address string) string { return answerTo(handler, address, len(good), strings.NewReader(good)) }
	for _, length := range []int{maxReview, -1} { // who does not say how much it is may send as much
		synctest.Test(t, func(t *testing.T) {
			end, ended := make(chan struct{}), make(chan string)
			slow := func(address string) {
				for range maxHeldOfOne / maxReview {
					go func() {
						ended <- answerTo(handler, address, length, unfinished{strings.NewReader("{"), end})
					}()
				}
				synctest.Wait()
			}
			slow("10.0.0.1:1000")
			if got := ask("10.0.0.1:1001"); got != "503 false" {
				t.Errorf("an address that holds its share: %s", got)
			}
			if got := ask("[fd00::2]:1001"); got != "200 true" {
				t.Errorf("another address: %s", got)
			}
			for i := 1; i < maxHeld/maxHeldOfOne; i++ {
				slow(fmt.Sprintf("10.0.1.%d:1000", i))
			}
			if got := ask("10.0.0.2:1000"); got != "200 true" {
				t.Errorf("a short question beside as many long ones as may be: %s", got)
			}
			waits := make(chan string)
			go func() { waits <- ask("10.0.0.1:1002") }()
			synctest.Wait()
			close(end)
			for range maxHeld / maxReview {
				if got := <-ended; got != "400 false" {
					t.Errorf("half a question: %s", got)
				}
			}
			if got := <-waits; got != "200 true" {
				t.Errorf("one that waited until it was given back: %s", got)
			}
		})
	}
}

// An API server has 600 requests under way at the most unless it is told otherwise, and sends all of them from one address.
func TestAllThatAnAPIServerAsksAtOnceIsAnswered(t *testing.T) {
	handler, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	for size, atOnce := range map[int]int{24 << 10: 600, 3 << 20: 5} {
		good := reviewOf(t, question(t, "CREATE pods", "support", podOf(t, simple), nil))
		good += strings.Repeat(" ", size-len(good))
		synctest.Test(t, func(t *testing.T) {
			end, answers := make(chan struct{}), make(chan string)
			for range atOnce {
				go func() {
					answers <- answerTo(handler, "10.0.0.1:6443", size, unfinished{strings.NewReader(good), end})
				}()
			}
			synctest.Wait() // all of them are here, and none is answered
			close(end)
			for range atOnce {
				if got := <-answers; got != "200 true" {
					t.Errorf("%d of %d bytes: %s", atOnce, size, got)
				}
			}
		})
	}
}

func TestTextsAreReadToTheirEndAndRoomIsGivenBack(t *testing.T) {
	for _, size := range []int{0, 1, leastHeld - 1, leastHeld, leastHeld + 1, 2 * leastHeld, 5*leastHeld + 3, maxReview} {
		text := strings.Repeat("x", size)
		for _, says := range []int{-1, size} {
			r := httptest.NewRequest(http.MethodPost, PathMutatePod, strings.NewReader(text))
			r.ContentLength = int64(says)
			most := sizeOf(r)
			got, err := readAll(r, most)
			if err != nil || string(got) != text || cap(got) > most+1 {
				t.Errorf("%d bytes, said to be %d: %d read, %d of %d taken, %v", size, says, len(got), cap(got), most, err)
			}
		}
	}
	r := httptest.NewRequest(http.MethodPost, PathMutatePod, strings.NewReader(strings.Repeat("x", leastHeld+1)))
	if _, err := readAll(r, leastHeld); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("more than it counts for: %v", err)
	}
	room := new(room)
	for range 2 {
		if err := room.take(t.Context(), "a", maxHeldOfOne); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := room.take(ctx, "a", 1); !errors.Is(err, errNoRoom) {
			t.Errorf("beyond the share: %v", err)
		}
		if room.give("a", maxHeldOfOne); room.held != 0 || len(room.of) != 0 {
			t.Errorf("left behind: %d %v", room.held, room.of)
		}
	}
}
