package main

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// terminal reports whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}

// painter colours words on a terminal and leaves them alone elsewhere, so that
// a file or a pipe holds plain text.
type painter struct{ on bool }

// newPainter follows https://no-color.org.
func newPainter(w io.Writer, getenv func(string) string) painter {
	return painter{on: terminal(w) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

func (p painter) red(s string) string    { return p.paint("31", s) }
func (p painter) green(s string) string  { return p.paint("32", s) }
func (p painter) yellow(s string) string { return p.paint("33", s) }
func (p painter) faint(s string) string  { return p.paint("2", s) }

func (p painter) paint(code, s string) string {
	if !p.on {
		return s
	}
	return fmt.Sprintf("\x1b[%sm%s\x1b[0m", code, s)
}
