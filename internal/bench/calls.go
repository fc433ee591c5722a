package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// calls is what a process asked of the kernel so far.
type calls struct {
	reads, writes int64 // read(2), also those that found nothing, and write(2)
	sleeps        int64 // a thread went to sleep and was woken
	preempted     int64 // a thread was put aside for another process
}

// callsOf reads the counters of a process: /proc/PID/io, and /proc/PID/task/*/status.
// Calls of other families, recvmsg and epoll_wait among them, are not counted.
func callsOf(pid int) (calls, error) {
	var c calls
	dir := fmt.Sprintf("/proc/%d", pid)
	if err := eachCount(filepath.Join(dir, "io"), func(name string, n int64) {
		switch name {
		case "syscr":
			c.reads += n
		case "syscw":
			c.writes += n
		}
	}); err != nil {
		return c, err
	}
	tasks, err := filepath.Glob(filepath.Join(dir, "task", "*", "status"))
	if err != nil {
		return c, err
	}
	for _, t := range tasks {
		err := eachCount(t, func(name string, n int64) {
			switch name {
			case "voluntary_ctxt_switches":
				c.sleeps += n
			case "nonvoluntary_ctxt_switches":
				c.preempted += n
			}
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a thread that ended
			return c, err
		}
	}
	return c, nil
}

// eachCount calls fn with the lines of a file of proc(5) that hold one number.
func eachCount(name string, fn func(name string, n int64)) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		key, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		if n, err := strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err == nil {
			fn(string(key), n)
		}
	}
	return nil
}

// perUnit says what was asked between before and after for each of n units.
func (c calls) perUnit(before calls, n int64) string {
	each := func(after, before int64) float64 { return float64(after-before) / float64(n) }
	return fmt.Sprintf("%.2f read(2), %.2f write(2), %.2f sleeps, %.3f preemptions a unit of %d",
		each(c.reads, before.reads), each(c.writes, before.writes), each(c.sleeps, before.sleeps),
		each(c.preempted, before.preempted), n)
}
