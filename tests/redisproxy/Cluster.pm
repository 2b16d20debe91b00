package Cluster;

# A Redis Cluster of real servers, made by the test itself.
#
#   my $cluster = Cluster->new(masters => 3, replicas => 1);   # replicas: of each master
#                                                              # tls => 'server': its certificate (Tls.pm)
#   my $proxy = $cluster->proxy(args => [...]);
#   $cluster->nodes                  # Redis::Process, the masters first
#   $cluster->master_of('key')       # index of the node that serves its slot now
#   $cluster->move($slot, $to)       # migrate a slot with its keys to node $to, as redis-cli does it

use strict;
use warnings;
use EG::Test;
use Redis;
use Tls;

sub new
{
	my ($class, %o) = @_;
	my ($masters, $replicas) = ($o{masters} // 3, $o{replicas} // 0);
	my $n = $masters * (1 + $replicas);
	my @ids = map { join '', map { sprintf '%x', rand 16 } 1 .. 40 } 1 .. $n;
	my @nodes;
	# A port that was free may be taken a moment later.
	for my $try (1 .. 5) {
		@nodes = start_nodes(\@ids, $masters, %o) and last;
	}
	@nodes or die 'no cluster';
	my $self = bless { nodes => \@nodes, ids => \@ids }, $class;
	# CLUSTER SLOTS names replicas only when they have been sent something.
	for my $i (0 .. $masters - 1) {
		my $c = $self->client($i);
		wait_for { $c->cmd('CLUSTER', 'INFO') =~ /cluster_state:ok/ } "node $i to take writes";
		my $n = 0;
		$n++ while ref $c->cmd('SET', "first$n", 1);
		$c->cmd('DEL', "first$n");
	}
	for my $i (0 .. $#nodes) {
		wait_for {
			my $slots = $self->client($i)->cmd('CLUSTER', 'SLOTS');
			$self->client($i)->cmd('CLUSTER', 'INFO') =~ /cluster_state:ok/ && @$slots == $masters && !grep { @$_ != 3 + $replicas } @$slots
		} "node $i to know the cluster";
		wait_for { $self->client($i)->cmd('INFO', 'replication') =~ /master_link_status:up/ } 'replication' if $i >= $masters;
	}
	return $self;
}

# They know each other from the start, which saves many seconds of gossip.
sub start_nodes
{
	my ($ids, $masters, %o) = @_;
	my $n = @$ids;
	my @at = map { { port => Redis::free_port(), bus_port => Redis::free_port(), ($o{tls} ? (tls_port => Redis::free_port()) : ()) } } 1 .. $n;
	my $row = sub {
		my ($i, $myself) = @_;
		my ($from, $to) = map { int 16384 * $_ / $masters } $i, $i + 1;
		my $role = $i < $masters ? 'master' : 'slave';
		return join(' ', $ids->[$i], "127.0.0.1:@{[ $at[$i]{tls_port} // $at[$i]{port} ]}\@$at[$i]{bus_port}", ($myself ? "myself,$role" : $role),
			$i < $masters ? '-' : $ids->[ $i % $masters ], 0, 0, $i + 1, 'connected', $i < $masters ? $from . '-' . ($to - 1) : ()) . "\n";
	};
	my @nodes;
	for my $i (0 .. $n - 1) {
		my $map = spew(test_path("nodes-$at[$i]{port}.conf"),
			join('', map { $row->($_, $_ == $i) } 0 .. $n - 1) . "vars currentEpoch $n lastVoteEpoch 0\n");
		my @tls = $o{tls} ? ('--tls-cluster', 'yes', '--tls-replication', 'yes', Tls::server_args($at[$i]{tls_port}, $o{tls}, 'no')) : ();
		my $node = eval {
			Redis::server(%{ $at[$i] }, cluster => 1, args => [ '--cluster-enabled', 'yes', '--cluster-config-file', $map,
				'--cluster-node-timeout', $o{node_timeout_ms} // 15000, '--cluster-replica-validity-factor', 0,
				'--cluster-allow-replica-migration', 'no', @tls, @{ $o{args} // [] } ])
		};
		if (!$node) {
			die $@ if $@ !~ /taken/;
			$_->kill9 for @nodes;
			return;
		}
		$node->{tls_port} = $at[$i]{tls_port};
		push @nodes, $node;
	}
	return @nodes;
}

sub nodes { return @{ $_[0]{nodes} } }
sub node { return $_[0]{nodes}[ $_[1] ] }
sub client { my ($self, $i, %o) = @_; return Redis->new($self->{nodes}[$i]->redis_port) }

sub proxy
{
	my ($self, %o) = @_;
	my $seed = $self->{nodes}[0];
	my $to = $seed->{tls_port} ? "127.0.0.1:$seed->{tls_port}" : $seed;
	return Redis::proxy($to, %o, args => [ '--mode=cluster', @{ $o{args} // [] } ]);
}

sub master_of
{
	my ($self, $key, $ask) = @_;
	my $c = $self->client($ask // 0);
	my $slot = $key =~ /^#(\d+)$/ ? $1 : $c->cmd('CLUSTER', 'KEYSLOT', $key);
	for my $range (@{ $c->cmd('CLUSTER', 'SLOTS') }) {
		next if $slot < $range->[0] || $slot > $range->[1];
		my ($i) = grep { $self->{nodes}[$_]->redis_port == $range->[2][1] } 0 .. $#{ $self->{nodes} };
		return $i;
	}
	return;
}

# $each: called between two keys.
sub move
{
	my ($self, $slot, $to, $each) = @_;
	my $from = $self->master_of("#$slot", $to);
	return if $from == $to;
	my ($source, $target) = map { $self->client($_) } $from, $to;
	my $must = sub { my $r = shift; die "move: $$r\n" if ref $r eq 'Redis::Error'; return $r };
	$must->($target->cmd('CLUSTER', 'SETSLOT', $slot, 'IMPORTING', $self->{ids}[$from]));
	$must->($source->cmd('CLUSTER', 'SETSLOT', $slot, 'MIGRATING', $self->{ids}[$to]));
	while (my @keys = @{ $must->($source->cmd('CLUSTER', 'GETKEYSINSLOT', $slot, 1)) }) {
		$must->($source->cmd('MIGRATE', '127.0.0.1', $self->{nodes}[$to]->redis_port, '', 0, 5000, 'KEYS', @keys));
		$each->() if $each;
	}
	$must->($target->cmd('CLUSTER', 'SETSLOT', $slot, 'NODE', $self->{ids}[$to]));
	$must->($source->cmd('CLUSTER', 'SETSLOT', $slot, 'NODE', $self->{ids}[$to]));
	return;
}

1;
