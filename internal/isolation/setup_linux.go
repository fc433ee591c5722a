package isolation

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stage is what the child is: the same process, before and after it has given
// everything up.
type stage string

const (
	setupStage stage = "setup"
	initStage  stage = "init"
)

// Child is what a process does that Start has made, or that was executed in its
// place, with its stage and its environment. It returns the command's exit code. What
// fails is told to the engine; the error is that there is none.
func Child(s string, environ []string) (int, error) {
	file := os.NewFile(controlFD, "control")
	if file == nil {
		return 0, errors.New("no control socket: this command is for the engine's own use")
	}
	c, err := controlOf(file)
	if err != nil {
		return 0, fmt.Errorf("%w: this command is for the engine's own use", err)
	}
	code := 0
	switch stage(s) {
	case setupStage:
		err = setup(c, environ)
	case initStage:
		code, err = initialise(c)
	default:
		err = fmt.Errorf("no stage %q: this command is for the engine's own use", s)
	}
	if err != nil {
		_ = c.send(message{Failed: err.Error()}) // or the engine is gone, and it is nobody's business
		code = 1
	}
	runtime.KeepAlive(file) // its end would be the descriptor's, which both stages use
	return code, nil
}

// setup makes what is inside and becomes init. It only returns with an error.
func setup(c control, environ []string) error {
	// Capabilities and the filter are a thread's: what gives them up has to be
	// what executes init.
	runtime.LockOSThread()
	m, _, err := c.receive(time.Time{}) // the engine's end closes if it ends
	if err != nil || m.Files == nil {
		return fmt.Errorf("waiting for the engine: %w", err)
	}
	if err := makeNetwork(); err != nil {
		return err
	}
	l, err := openSockets()
	if err != nil {
		return err
	}
	rules := rules()
	if err := rules.Apply(); err != nil {
		return err
	}
	if err := rules.Check(); err != nil {
		return err
	}
	if err := l.probe(); err != nil {
		return fmt.Errorf("trying the redirect rules: %w", err)
	}
	if err := makeMounts(*m.Files); err != nil {
		return err
	}
	if err := lock(); err != nil {
		return err
	}
	if err := l.handOver(c); err != nil {
		return err
	}
	args := append(os.Args[:len(os.Args)-1:len(os.Args)-1], string(initStage))
	err = syscall.Exec("/proc/self/exe", args, environ)
	return fmt.Errorf("becoming init: %w", err)
}

// closeOnExec makes every descriptor but the standard ones and the control
// socket end with execve: what this program was started with is no way out
// for the command.
func closeOnExec() error {
	if err := unix.CloseRange(controlFD+1, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err == nil {
		return nil
	}
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		var fd int
		if _, err := fmt.Sscan(name, &fd); err == nil && fd > controlFD {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
