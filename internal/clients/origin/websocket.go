package origin

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"
)

// maxWebSocketMessage is more than a client sends here.
const maxWebSocketMessage = 32 << 20

// socketHandler echoes messages. The text "close 4001 why" closes with that
// code and reason.
func (s *Servers) socketHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mode := websocket.CompressionDisabled
		if r.URL.Path == "/deflate" {
			mode = websocket.CompressionContextTakeover
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}, CompressionMode: mode})
		if err != nil {
			return // Accept has answered
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(maxWebSocketMessage)
		echoMessages(r.Context(), c)
	})
}

func echoMessages(ctx context.Context, c *websocket.Conn) {
	for {
		kind, data, err := c.Read(ctx) // answers pings, and a close frame with its own code
		if err != nil {
			return
		}
		if rest, ok := strings.CutPrefix(string(data), "close "); ok && kind == websocket.MessageText {
			code, reason, _ := strings.Cut(rest, " ")
			if n, err := strconv.Atoi(code); err == nil {
				_ = c.Close(websocket.StatusCode(n), reason)
				return
			}
		}
		if err := c.Write(ctx, kind, data); err != nil {
			return
		}
	}
}
