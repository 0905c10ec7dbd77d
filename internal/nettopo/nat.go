package nettopo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/brfuse/brfuse/vnic"
)

// tableName is the table of the topology nat, of family ip.
const tableName = "brfuse-bench"

// translate makes the rules of the topology nat in one transaction.
func (b *builder) translate(context.Context) error {
	// Without nf_tables the kernel answers a transaction once, and the library would
	// wait for an answer to each of its messages.
	if _, err := hasTable(); err != nil {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	t := c.CreateTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4})
	r := ruleset{Conn: c, table: t, spec: b.Spec}
	if err := r.add(); err != nil {
		return fmt.Errorf("make nftables rules: %w", err)
	}
	err = c.Flush()
	if errors.Is(err, unix.ENOENT) { // the kernel lacks an expression or a type of chain
		err = fmt.Errorf("%w: %w; load the kernel modules %v", vnic.ErrUnsupported, err, Modules())
	}
	if err != nil {
		return fmt.Errorf("make nftables table %s: %w", tableName, err)
	}
	return nil
}

// hasTable tells whether there is the table. Where the kernel has no nftables, the error
// is [vnic.ErrUnsupported].
func hasTable() (bool, error) {
	c, err := nftables.New()
	if err != nil {
		return false, fmt.Errorf("open nftables: %w", err)
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		err = fmt.Errorf("%w: %w; load the kernel modules %v", vnic.ErrUnsupported, err, Modules())
	}
	if err != nil {
		return false, fmt.Errorf("list nftables tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }), nil
}

// removeTable deletes the table, if there is one, and makes the kernel forget the pod's
// connections.
func removeTable(pod netip.Addr) error {
	found, err := hasTable()
	if errors.Is(err, vnic.ErrUnsupported) {
		return nil
	}
	if err != nil || !found {
		return err
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	c.DelTable(&nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4})
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete nftables table %s: %w", tableName, err)
	}
	return forget(pod)
}

// ruleset is the rules of Docker's bridge network, in nftables' words, for one pod.
type ruleset struct {
	*nftables.Conn
	table *nftables.Table
	spec  Spec
	ports *nftables.Set
}

func (r *ruleset) add() error {
	r.ports = &nftables.Set{Table: r.table, ID: 1, Name: "published", KeyType: nftables.TypeInetService, KeyByteOrder: binaryutil.BigEndian}
	var elements []nftables.SetElement
	for _, p := range r.spec.Publish {
		elements = append(elements, nftables.SetElement{Key: binary.BigEndian.AppendUint16(nil, p)})
	}
	if err := r.AddSet(r.ports, elements); err != nil {
		return err
	}
	r.addDestination()
	r.addSource()
	r.addFilter()
	return nil
}

// addDestination leads the published ports to the pod.
func (r *ruleset) addDestination() {
	c := r.chain("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	pod := r.spec.Address.Addr()
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		r.rule(c, by(expr.MetaKeyIIFNAME, r.spec.Uplink, expr.CmpOpEq), toSelf(), r.published(p), match{
			&expr.Immediate{Register: reg, Data: pod.AsSlice()},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg},
		})
	}
}

// addSource hides the pods' network behind the uplink's address.
func (r *ruleset) addSource() {
	c := r.chain("postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	r.rule(c, by(expr.MetaKeyOIFNAME, r.spec.Uplink, expr.CmpOpEq), fromNetwork(r.spec.Address), match{&expr.Masq{}})
}

// addFilter accepts in Docker's order: answers by connection tracking, what is
// published, what the pod begins. Of the rest only what is for the pod is dropped.
func (r *ruleset) addFilter() {
	c := r.chain("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	toBridge := by(expr.MetaKeyOIFNAME, bridgeName, expr.CmpOpEq)
	r.rule(c, toBridge, answers(), verdict(expr.VerdictAccept))
	for _, p := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		r.rule(c, by(expr.MetaKeyIIFNAME, bridgeName, expr.CmpOpNeq), toBridge, to(r.spec.Address.Addr()), r.published(p), verdict(expr.VerdictAccept))
	}
	r.rule(c, by(expr.MetaKeyIIFNAME, bridgeName, expr.CmpOpEq), verdict(expr.VerdictAccept))
	r.rule(c, toBridge, verdict(expr.VerdictDrop))
}

func (r *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *nftables.Chain {
	policy := nftables.ChainPolicyAccept
	return r.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: priority, Policy: &policy})
}

func (r *ruleset) rule(c *nftables.Chain, parts ...match) {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	r.AddRule(&nftables.Rule{Table: r.table, Chain: c, Exprs: all})
}

// published matches the protocol and the published destination ports.
func (r *ruleset) published(protocol byte) match {
	return match{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: []byte{protocol}},
		&expr.Payload{DestRegister: reg, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg, SetName: r.ports.Name, SetID: r.ports.ID},
	}
}
