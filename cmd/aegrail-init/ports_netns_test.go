//go:build netns

package main

import (
	"bufio"
	"net"
	"testing"
	"time"
)

func TestE04TheEnginesPortsAreClosedToAgents(t *testing.T) {
	p := pod(t, "--free", "10.77.0.2,fd77::2") // with the pod's own addresses free, which makes it harder
	for name, c := range agents() {
		t.Run(name, func(t *testing.T) {
			addrs := []string{"127.0.0.1:15020", "[::1]:15020", "10.77.0.2:15020", "[fd77::2]:15020", "127.0.0.1:15080"}
			var refused, dropped []string
			for _, a := range addrs {
				refused, dropped = append(refused, a+": ECONNREFUSED"), append(dropped, a+": EPERM")
			}
			want(t, run1(t, p.Pod, c, "tcp", addrs...), refused...)
			want(t, run1(t, p.Pod, c, "udp", addrs...), dropped...)
			// The ports of redirection are open, and by hand there is no destination:
			// the engine refuses that and records it.
			want(t, run1(t, p.Pod, c, "tcp", "127.0.0.1:15001", "[::1]:15001"), "127.0.0.1:15001: engine", "[::1]:15001: engine")
			want(t, run1(t, p.Pod, c, "tcp", "10.77.0.2:8080", "[fd77::2]:8080"), "10.77.0.2:8080: app", "[fd77::2]:8080: app")
		})
	}
}

func TestWhoConnectsToThePodGetsAnAnswer(t *testing.T) {
	p := pod(t)
	p.Cluster.Do(func() {
		for to, word := range map[string]string{"10.77.0.2:8080": "app\n", "[fd77::2]:8080": "app\n", "10.77.0.2:15020": "engine's port\n"} {
			for _, network := range []string{"tcp", "udp"} {
				conn, err := net.DialTimeout(network, to, patience)
				if err != nil {
					t.Errorf("%s %s: %v", network, to, err)
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(patience))
				_, _ = conn.Write([]byte("?"))
				if line, err := bufio.NewReader(conn).ReadString('\n'); line != word {
					t.Errorf("%s %s: %q, %v", network, to, line, err)
				}
				conn.Close()
			}
		}
		// What is for redirected connections is on loopback alone.
		if conn, err := net.DialTimeout("tcp", "10.77.0.2:15001", patience); err == nil {
			conn.Close()
			t.Error("the transparent port is open to the cluster")
		}
	})
}
