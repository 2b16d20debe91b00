#!/usr/bin/env perl

# Slots move from node to node while clients write and read: MOVED and ASK are followed, every value is checked.

use FindBin;
use lib "$FindBin::Bin/../lib", $FindBin::Bin;
use EG::Test;
use Cluster;
use Redis;

my $cluster = Cluster->new(masters => 3);
my $proxy = $cluster->proxy;
wait_for { $proxy->log =~ /a cluster of 3 masters/ } 'the map';
wait_for { $proxy->log =~ /\d+ commands/ } 'the table of commands';

my $TAG = 'moving';
my $slot = $cluster->client(0)->cmd('CLUSTER', 'KEYSLOT', $TAG);

# A client with its own keys in the slot that moves, and some elsewhere: deep pipelines, a model of what must come.
sub new_client
{
	my ($name) = @_;
	return { name => $name, c => $proxy->client, n => 0, data => {} };
}

sub key { my ($m, $i) = @_; return $i % 3 ? "{$TAG}$m->{name}:$i" : "$m->{name}:$i" }

sub ask
{
	my ($m) = @_;
	my ($c, $data) = @$m{qw(c data)};
	my @want;
	for (1 .. 1 + rand 12) {
		my $k = key($m, int rand 8);
		my $what = rand;
		if ($what < 0.4) {
			my $v = "$m->{name}#" . $m->{n}++ . 'x' x (rand() < 0.05 ? 20_000 : 5);
			$c->put('SET', $k, $v);
			$data->{$k} = $v;
			push @want, 'OK';
		} elsif ($what < 0.7) {
			$c->put('GET', $k);
			push @want, $data->{$k};
		} elsif ($what < 0.8) {
			$c->put('DEL', $k);
			push @want, exists $data->{$k} ? 1 : 0;
			delete $data->{$k};
		} elsif ($what < 0.85) {
			$c->put('RPUSH', "{$TAG}$m->{name}:list", $m->{n});
			$c->put('BLPOP', "{$TAG}$m->{name}:list", 0);
			push @want, 1, [ "{$TAG}$m->{name}:list", $m->{n}++ ];
		} elsif ($what < 0.9) {
			$c->put('EVAL', 'return redis.call("INCR", KEYS[1])', 1, "{$TAG}$m->{name}:n");
			push @want, ++$m->{incr};
		} elsif ($what < 0.95) {
			my @keys = map { key($m, $_) } 0, 3, 6;
			$c->put('MGET', @keys);
			push @want, [ @$data{@keys} ];
		} else {
			$c->put('ECHO', "$m->{name}$m->{n}");
			push @want, "$m->{name}" . $m->{n}++;
		}
	}
	return \@want;
}

sub same
{
	my ($got, $want) = @_;
	return !defined $got if !defined $want;
	return 0 if !defined $got || ref $got ne ref $want;
	return $got eq $want if !ref $want;
	return @$got == @$want && !grep { !same($got->[$_], $want->[$_]) } 0 .. $#$want;
}

sub show { my ($v) = @_; return !defined $v ? 'nil' : ref $v eq 'ARRAY' ? '[' . join(',', map { show($_) } @$v) . ']' : ref $v ? "-$$v" : substr $v, 0, 60 }

my @clients = map { new_client("c$_") } 1 .. 8;
my ($checked, $bad) = (0, 0);

# One round: all clients ask, one more thing happens, all replies are read.
sub round_of
{
	my ($between) = @_;
	my @want = map { ask($_) } @clients;
	$between->() if $between;
	for my $i (reverse 0 .. $#clients) {
		for my $want (@{ $want[$i] }) {
			my $got = $clients[$i]{c}->get;
			$checked++;
			next if same($got, $want);
			diag "$clients[$i]{name}: got " . show($got) . ', expected ' . show($want) if $bad++ < 5;
		}
	}
	return;
}

subtest 'a slot goes round, key by key' => sub {
	round_of() for 1 .. 10;
	for my $turn (1 .. 4) {
		my $to = ($cluster->master_of("#$slot", 1) + 1) % 3;
		$cluster->move($slot, $to, sub { round_of() });
		round_of();
	}
	is $bad, 0, "$checked replies, each the right one at its place";
	cmp_ok $proxy->metric("redisproxy_redirections_total{kind=\"$_\"}") // 0, '>', 0, "$_ was seen" for qw(moved ask);
};

# Keys that are asked for in between are on both sides.
subtest 'several keys while they move' => sub {
	my $c = $proxy->client;
	my @keys = map { "{$TAG}several$_" } 1 .. 10;
	is $c->cmd('MSET', map { ($_, "v$_") } @keys), 'OK';
	my $to = ($cluster->master_of("#$slot", 1) + 1) % 3;
	my (%seen, $wrong);
	$cluster->move($slot, $to, sub {
		my $got = $c->cmd('MGET', @keys);
		my $kind = ref $got eq 'ARRAY' ? 'values' : (split / /, $$got)[0];
		$seen{$kind}++;
		$wrong++ if $kind eq 'values' ? !same($got, [ map { "v$_" } @keys ]) : $kind ne 'TRYAGAIN';
	});
	is $wrong, undef, 'the values, or TRYAGAIN: ' . join ', ', map { "$seen{$_} $_" } sort keys %seen;
	is_deeply $c->cmd('MGET', @keys), [ map { "v$_" } @keys ], 'all there when it is done';
};

subtest 'transactions while they move' => sub {
	my $c = $proxy->client;
	my $n = 0;
	my (%seen, @wrong);
	my $transact = sub {
		my $own = "{$TAG}t" . int rand 3;
		my $watch = rand() < 0.3;
		$c->put('WATCH', "{$TAG}count") if $watch;
		$c->put('MULTI'), $c->put('INCR', "{$TAG}count"), $c->put('SET', $own, $n), $c->put('EXEC');
		my @r = map { $c->get } 1 .. 4 + $watch;
		my $r = pop @r;
		my $kind = ref $r eq 'ARRAY' ? 'done' : defined $r ? (split / /, $$r)[0] : 'nil';
		$seen{$kind}++;
		push @wrong, show(\@r) . show($r) if $kind eq 'done' ? $r->[0] != ++$n || $r->[1] ne 'OK' : $kind !~ /^(?:EXECABORT|nil)$/;
	};
	$transact->() for 1 .. 3;
	for (1 .. 3) {
		my $to = ($cluster->master_of("#$slot", 1) + 1) % 3;
		$cluster->move($slot, $to, $transact);
		$transact->() for 1 .. 3;
	}
	is_deeply \@wrong, [], 'done, or not at all: ' . join ', ', map { "$seen{$_} $_" } sort keys %seen;
	is $c->cmd('GET', "{$TAG}count"), $n, 'none was lost, none done twice';
};

subtest 'large values while they move' => sub {
	my $c = $proxy->client;
	my (%seen, $wrong);
	my $want = '';
	my $to = ($cluster->master_of("#$slot", 1) + 1) % 3;
	$cluster->move($slot, $to, sub {
		my $v = chr(97 + rand 26) x 400_000;
		my $r = $c->cmd('SET', "{$TAG}large", $v);
		$want = $v if !Redis::is_error($r);
		$seen{ Redis::is_error($r) ? (split / /, $$r)[0] : $r }++;
		my $got = $c->cmd('GET', "{$TAG}large") // '';
		$wrong++ if $got ne $want;
	});
	is $wrong, undef, 'what was set is got: ' . join ', ', map { "$seen{$_} $_" } sort keys %seen;
	is_deeply [ grep { !/^(?:OK|TRYAGAIN)$/ } keys %seen ], [], 'or TRYAGAIN';
};

subtest 'a slot that nobody serves' => sub {
	my $c = $proxy->client;
	my $free = $cluster->client(0)->cmd('CLUSTER', 'KEYSLOT', 'nobody');
	$cluster->client($_)->cmd('CONFIG', 'SET', 'cluster-require-full-coverage', 'no') for 0 .. 2;
	$cluster->client($_)->cmd('CLUSTER', 'DELSLOTS', $free) for 0 .. 2;
	like Redis::is_error($c->cmd('GET', 'nobody')), qr/^CLUSTERDOWN Hash slot not served/, 'said so';
	is $c->cmd('SET', 'other', 1), 'OK', 'others are served';
};

done_testing;
