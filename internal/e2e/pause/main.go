// Command pause holds a pod's namespaces until it is told to stop, as the
// image of that name does in other clusters.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop, children := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(children, syscall.SIGCHLD)
	for {
		select {
		case <-stop:
			return
		case <-children: // of a pod whose containers share its pid namespace
			for {
				if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != nil || pid <= 0 {
					break
				}
			}
		}
	}
}
