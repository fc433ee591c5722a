package isolation

import "testing"

// A process that has given up nothing must not pass for one that has.
func TestE03WhatIsNotLockedIsSeen(t *testing.T) {
	if err := locked(); err == nil {
		t.Error("this process was taken for one without any privilege")
	}
}
