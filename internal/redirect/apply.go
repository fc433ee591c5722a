//go:build linux

package redirect

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/google/nftables"
)

func table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
}

// Apply makes r the rules of the network namespace that the calling thread is
// in. It replaces what an earlier Apply left and touches no other table.
func (r Rules) Apply() error {
	if err := r.check(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return explain("applying the redirect rules", err)
	}
	// To add before deleting makes the deletion one of a table that is there.
	c.AddTable(table())
	c.DelTable(table())
	t := c.AddTable(table())
	for _, ch := range r.chains(t) {
		c.AddChain(ch.Chain)
		for _, exprs := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: ch.Chain, Exprs: exprs})
		}
	}
	if err := c.Flush(); err != nil {
		return explain("applying the redirect rules", err)
	}
	return nil
}

// Check reads the rules back and returns an error that names each line that is
// missing from the namespace's table or that is there and should not be, and
// nil where the table is exactly r.
func (r Rules) Check() error {
	if err := r.check(); err != nil {
		return err
	}
	got, err := List()
	if err != nil {
		return err
	}
	want := r.String()
	if got == want {
		return nil
	}
	have, need := strings.Split(got, "\n"), strings.Split(want, "\n")
	var different []string
	for _, line := range need {
		if !slices.Contains(have, line) {
			different = append(different, "missing: "+strings.TrimSpace(line))
		}
	}
	for _, line := range have {
		if !slices.Contains(need, line) {
			different = append(different, "not ours: "+strings.TrimSpace(line))
		}
	}
	if different == nil {
		different = []string{"the same lines in another order"}
	}
	return fmt.Errorf("the redirect rules are not as they were applied; apply them again:\n  %s", strings.Join(different, "\n  "))
}

// List returns the table as the kernel has it, as text; "" where there is none.
func List() (string, error) {
	c, err := nftables.New()
	if err != nil {
		return "", explain("listing the redirect rules", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", explain("listing the redirect rules", err)
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
	if at < 0 {
		return "", nil
	}
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return "", explain("listing the redirect rules", err)
	}
	var chains []chain
	for _, ch := range all {
		if ch.Table.Name != tableName {
			continue
		}
		rules, err := c.GetRules(tables[at], ch)
		if err != nil {
			return "", explain("listing the redirect rules", err)
		}
		listed := chain{Chain: ch}
		for _, rule := range rules {
			listed.rules = append(listed.rules, rule.Exprs)
		}
		chains = append(chains, listed)
	}
	return render(tables[at], chains), nil
}

// explain adds what an error number means here.
func explain(doing string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.EPROTONOSUPPORT), errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOENT):
		hint = "; the kernel has no nf_tables, or not its NAT and redirect modules"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		hint = "; it needs CAP_NET_ADMIN over the network namespace"
	}
	return fmt.Errorf("%s: %w%s", doing, err, hint)
}
