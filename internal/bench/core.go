package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// cores are the two that the run is split between.
type cores struct{ proxy, load int }

// pin takes two of the cores that this process may use, and puts all of it on
// one of them. Interrupts mostly go to the first core, so that is the load's.
func pin() (cores, error) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return cores{}, fmt.Errorf("asking which cores we may use: %w", err)
	}
	var ids []int
	for i := 0; len(ids) < may.Count(); i++ {
		if may.IsSet(i) {
			ids = append(ids, i)
		}
	}
	if len(ids) < 2 {
		return cores{}, errors.New("two cores are needed: one for the proxy, one for the load")
	}
	c := cores{proxy: ids[len(ids)-1], load: ids[0]}
	// Threads inherit from the one that made them; the second round catches
	// what a thread made between being listed and being moved.
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return cores{}, err
		}
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := putOn(id, c.load); err != nil && !errors.Is(err, unix.ESRCH) {
				return cores{}, err
			}
		}
	}
	runtime.GOMAXPROCS(1)
	return c, nil
}

// putOn moves a thread to a core; 0 is the caller's.
func putOn(thread, core int) error {
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(thread, &set); err != nil {
		return fmt.Errorf("moving to core %d: %w", core, err)
	}
	return nil
}

// startOn starts cmd on the proxy's core: a child inherits the affinity of the
// thread that forks.
func (c cores) startOn(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := putOn(0, c.proxy); err != nil {
		return err
	}
	err := cmd.Start()
	return errors.Join(err, putOn(0, c.load))
}

// cpuTime is all CPU time of a process so far, by the kernel's clock for it.
func cpuTime(pid int) (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of the kernel's posix-timers.h
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|sched, &ts); err != nil {
		return 0, fmt.Errorf("reading the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory reads one line of /proc/PID/status, in bytes: VmRSS is what is
// resident now, VmHWM the most that ever was.
func memory(pid int, line string) (int64, error) {
	name := fmt.Sprintf("/proc/%d/status", pid)
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		if rest, ok := bytes.CutPrefix(lines.Bytes(), []byte(line+":")); ok {
			kib, err := strconv.ParseInt(string(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte(" kB"))), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no line %s", name, line)
}
