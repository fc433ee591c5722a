package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/arpitcoder/aegrail-engine/api/policy/v1alpha1"
	"github.com/arpitcoder/aegrail-engine/internal/policy"
)

// fences returns the contents of README.md's code blocks of a language.
func fences(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(text), "```"+language+"\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) == 0 {
		t.Fatalf("README.md has no %s block", language)
	}
	return blocks
}

// readmeCommands are the arguments of each aegrail-engine command in README.md.
func readmeCommands(t *testing.T) [][]string {
	t.Helper()
	var all [][]string
	for _, block := range fences(t, "console") {
		for line := range strings.Lines(block) {
			if rest, ok := strings.CutPrefix(line, "$ aegrail-engine "); ok {
				rest, _, _ = strings.Cut(rest, "#")
				rest, _, _ = strings.Cut(rest, ">") // where a shell sends its output
				all = append(all, strings.Fields(rest))
			}
		}
	}
	return all
}

func TestREADMECommandsExist(t *testing.T) {
	commands := readmeCommands(t)
	if len(commands) < 8 {
		t.Fatalf("%d commands", len(commands))
	}
	for _, args := range commands {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			root := rootCommand(&world{getenv: func(string) string { return "" }, stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}})
			c, rest, err := root.Find(args)
			if err != nil || c == root {
				t.Fatalf("no such command: %v", err)
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Fatal(err)
			}
			if err := c.ValidateArgs(c.Flags().Args()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTheAuditorsSessionIsAScript holds the five commands of package audit's
// documentation to the script that runs them.
func TestTheAuditorsSessionIsAScript(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "internal", "audit", "doc.go"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join("testdata", "script", "auditor.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for line := range strings.Lines(string(doc)) {
		command, ok := strings.CutPrefix(line, "//\taegrail-engine ")
		if !ok {
			continue
		}
		if commands++; !strings.Contains(string(script), "\nexec aegrail-engine "+command) {
			t.Errorf("the script does not run: aegrail-engine %s", command)
		}
	}
	if commands != 5 {
		t.Errorf("%d commands, want five", commands)
	}
}

// TestREADMEsLogSessionMakesWhatItReads: who types its lines one after the other
// must not be asked for a file that none of them has written.
func TestREADMEsLogSessionMakesWhatItReads(t *testing.T) {
	made, read := map[string]bool{"policy.yaml": true, "ca": true}, 0
	for _, block := range fences(t, "console") {
		if !strings.Contains(block, " audit prove ") {
			continue
		}
		for line := range strings.Lines(block) {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			for i, word := range words[:len(words)-1] {
				switch word {
				case ">", "-o", "--audit-anchor":
					made[words[i+1]] = true
				case "--audit-file":
					made[words[i+1]], made[words[i+1]+".key"] = true, true
				case "--key", "--anchor", "--proof", "--policy", "--ca-dir", "key", "verify", "report", "show", "prove":
					if read++; !made[words[i+1]] {
						t.Errorf("nothing has made %s before: %s", words[i+1], line)
					}
				}
			}
		}
	}
	if read < 10 {
		t.Errorf("%d files", read)
	}
}

func TestREADMEPoliciesCompile(t *testing.T) {
	blocks := fences(t, "yaml")
	for _, block := range fences(t, "console") {
		if _, after, ok := strings.Cut(block, "$ cat policy.yaml\n"); ok {
			yaml, _, _ := strings.Cut(after, "$ ")
			blocks = append(blocks, yaml)
		}
	}
	if len(blocks) < 2 {
		t.Fatalf("%d policies", len(blocks))
	}
	for _, block := range blocks {
		docs, err := v1alpha1.Parse("README.md", []byte(block))
		if err != nil {
			t.Error(err)
			continue
		}
		if _, _, err := policy.Compile(docs, policy.Options{AnyAgent: true}); err != nil {
			t.Error(err)
		}
	}
}

// TestREADMESessionRuns runs the first session with a program that every
// machine has in place of the agent.
func TestREADMESessionRuns(t *testing.T) {
	session := fences(t, "console")[0]
	_, after, _ := strings.Cut(session, "$ cat policy.yaml\n")
	yaml, _, _ := strings.Cut(after, "$ ")
	commands := readmeCommands(t)[:2]
	t.Chdir(t.TempDir())
	if err := os.WriteFile("policy.yaml", []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range commands {
		if i := slices.Index(args, "python"); i > 0 {
			args = append(args[:i:i], "true")
		}
		var stdout, stderr bytes.Buffer
		if err := run(t.Context(), args, func(string) string { return "" }, &stdout, &stderr); err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, stderr.String())
		}
	}
}
