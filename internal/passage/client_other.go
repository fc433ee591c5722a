//go:build !linux

package passage

import (
	"context"
	"errors"
	"net"
	"syscall"
)

// Client is the engine's end, which only Linux has.
type Client struct{}

var errLinux = errors.New("a way out of a pod by a mark: only Linux has it")

// NewClient makes a Client that dials nothing.
func NewClient(string) *Client { return new(Client) }

// DialContext fails.
func (*Client) DialContext(context.Context, string, string) (net.Conn, error) { return nil, errLinux }

// Control fails.
func (*Client) Control(context.Context, string, string, syscall.RawConn) error { return errLinux }
