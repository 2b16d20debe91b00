#!/usr/bin/env perl

# One PURGE, three pods. Each pod is a network namespace with two gatewayd; a fourth, the hub, has the bridge
# between them, a real DNS server (dnsmasq) for the headless service, and broadcasterd. Namespaces live as long as
# the processes that hold them, so nothing is left behind. Test and daemons meet over Unix sockets.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use IO::Socket::UNIX;
use Time::HiRes qw(time);

use constant { SERVICE => 'gateway-headless.test', NET => '10.77.0' };

plan skip_all => 'network namespaces need root' if $> != 0;
for my $tool (qw(ip dnsmasq nsenter unshare mount)) {
	plan skip_all => "$tool is missing" if !grep { -x "$_/$tool" } split(/:/, $ENV{PATH}), '/usr/sbin', '/sbin';
}
$ENV{PATH} .= ':/usr/sbin:/sbin';
plan skip_all => 'network namespaces are not allowed here' if system('unshare -n -m true 2>/dev/null') != 0;

# ---- four machines ----

sub run { system(@_) == 0 or die "@_: " . ($? >> 8) . "\n"; return }

# A namespace; its pid stands for it.
sub machine
{
	my ($name) = @_;
	my $p = process($name, [ 'unshare', '-n', '--', 'sleep', 'infinity' ], exit => qr/^15$/);
	my $ns = "/proc/" . $p->pid . "/ns/net";
	wait_for { readlink($ns) && readlink($ns) ne readlink('/proc/self/ns/net') } "the namespace of $name";
	return $p;
}
sub inside { my ($machine, @command) = @_; return ('nsenter', '--net=/proc/' . $machine->pid . '/ns/net', '--', @command) }
sub at { my ($machine, $command) = @_; return run(inside($machine, 'sh', '-ec', $command)) }

my $hub = machine('hub');
at($hub, 'ip link set lo up; ip link add br0 type bridge; ip addr add ' . NET . '.1/24 dev br0; ip addr add fd77::1/64 dev br0 nodad; ip link set br0 up');
my @machines = map {
	my $m = machine("pod$_");
	at($hub, "ip link add p$_ type veth peer name eth0 netns " . $m->pid . "; ip link set p$_ master br0 up");
	at($m, 'ip link set lo up; ip addr add ' . NET . ".1$_/24 dev eth0; ip addr add fd77::1$_/64 dev eth0 nodad; ip link set eth0 up");
	$m;
} 1 .. 3;
sub cut { my ($i) = @_; return at($hub, "ip link set p$i down") }
sub mend { my ($i) = @_; return at($hub, "ip link set p$i up") }

# ---- the DNS server ----

my $hosts = test_path('hosts');
my %addresses = map { ($_ => [ NET . ".1$_" ]) } 1 .. 3;
sub write_hosts { return spew($hosts, join '', map { my $i = $_; map { "$_ " . SERVICE . "\n" } @{ $addresses{$i} } } sort keys %addresses) }
write_hosts();
my $dns = process('dnsmasq', [ inside($hub, 'dnsmasq', '--keep-in-foreground', '--conf-file=/dev/null', '--no-resolv', '--no-hosts',
	"--addn-hosts=$hosts", '--local=/test/', '--local-ttl=0', '--bind-interfaces', '--listen-address=' . NET . '.1', '--pid-file=',
	'--user=root', '--log-facility=-', '--log-queries') ], ready => qr/read $hosts/);
# The service's addresses from now on.
sub dns
{
	write_hosts();
	my $n = () = $dns->log =~ /read \Q$hosts\E/g;
	$dns->signal('HUP');
	return wait_for { (() = $dns->log =~ /read \Q$hosts\E/g) > $n } 'dnsmasq to read the addresses';
}
my $resolv = spew(test_path('resolv.conf'), 'nameserver ' . NET . ".1\n");

# ---- pods ----

my $token = 'purge-token-of-the-pods';
my $env = { PROVIDER => 'mock', PURGE_TOKEN => $token, GATEWAYD_INSTANCES => 2, STORE_DIR => test_path('cache'), LOG_LEVEL => 'debug' };
my (%gatewayds, @all);
sub pod
{
	my ($i, $machine) = @_;
	my $dir = test_path("run$i");
	-d $dir or mkdir $dir or die;
	$gatewayds{$i} = [ map {
		process("gatewayd.$i.$_", [ inside($machine, eg_bin('gatewayd')) ], rpc => "run$i/gatewayd.$_.sock",
			env => { %$env, RUN_DIR => $dir, GATEWAYD_INSTANCE => $_, GATEWAYD_LISTEN => "[::]:810$_" })
	} 0, 1 ];
	push @all, @{ $gatewayds{$i} };
	return;
}
pod($_, $machines[ $_ - 1 ]) for 1 .. 3;

my $listen = test_path('broadcaster-http.sock');
my $broadcaster = process('broadcasterd', [ inside($hub, 'unshare', '-m', '--', 'sh', '-c',
	'mount --bind "$0" /etc/resolv.conf && exec "$@"', $resolv, eg_bin('broadcasterd')) ], ready => 'rpc', rpc => 'broadcasterd.sock',
	sockets => [ [ 'http', listen_unix($listen) ] ], env => { TARGET_SERVICE => SERVICE, TARGET_PORT => 8100, PURGE_TOKEN => $token,
		BROADCASTERD_JOURNAL => test_path('journal'), BROADCASTERD_CONNECT_TIMEOUT => '300ms', BROADCASTERD_RESOLVE_TIMEOUT => '500ms',
		 LOG_LEVEL => 'debug', http_proxy => 'http://' . NET . '.99:1' });

sub purge
{
	my (%headers) = @_;
	my $target = delete $headers{target} // '/';
	my $r = http('PURGE', "unix:$listen:$target", [%headers]);
	$r->{json} = eval { json_decode($r->{body}) };
	return $r;
}
sub metric { return http('GET', "unix:$listen:/metrics")->{body} =~ /^\Q$_[0]\E (\S+)$/m ? $1 : 0 }
sub pending { return metric('broadcaster_redeliveries_pending') }
sub ended { return metric(qq(broadcaster_redeliveries_ended_total{result="$_[0]"})) }

# ---- what a gatewayd has ----

sub counters
{
	my ($gatewayd) = @_;
	my %sum;
	for my $family (@{ $gatewayd->rpc->call('metrics')->[0] }) {
		next if $family->[0] ne 'gatewayd_elements_total';
		$sum{ $_->[0][0] } += $_->[1] for @{ $family->[5] };
	}
	return \%sum;
}

# Where one text comes from: memory, store, bought ...
sub source
{
	my ($gatewayd, $text, @headers) = @_;
	my $before = counters($gatewayd);
	my $body = json_encode({ model => 'text-embedding-3-small', dimensions => 8, input => $text });
	my ($r) = $gatewayd->rpc->call('request', [ 'POST', '/v1/embeddings', [ [ 'Host', 'gateway' ], [ 'Content-Type', 'application/json' ], @headers ],
		mp_bin($body) ]);
	die "status $r->[0]" if $r->[0] != 200;
	my $after = counters($gatewayd);
	my ($source) = grep { ($after->{$_} // 0) > ($before->{$_} // 0) } sort keys %$after;
	return $source // 'response';
}

# Texts with a tag and without one in every gatewayd's memory, and in the store that all share.
sub warm
{
	for my $gatewayd (@all) {
		source($gatewayd, "red $_", [ 'Surrogate-Key', 'red' ]), source($gatewayd, "plain $_") for 1 .. 3;
	}
	return;
}
sub sources { my ($text, @gatewayds) = @_; return join ' ', map { source($_, $text) } @gatewayds }
sub names { return map { @{ $addresses{$_} } } @_ }
sub failed { my ($r) = @_; return map { $_->{pod} } grep { !$_->{success} } @{ $r->{json}{results} // [] } }

subtest 'one purge, every instance of every pod' => sub {
	warm();
	is sources('red 1', @all), join(' ', ('memory') x 6), 'warm';
	my $r = purge('Surrogate-Key' => 'red');
	is $r->{status}, 200, 'purged' or diag $r->{body};
	is_deeply [ map { $_->{pod} } @{ $r->{json}{results} } ], [ map { "$_:8100" } names(1 .. 3) ], 'the addresses of the service';
	is sources("plain $_", @all), join(' ', ('memory') x 6), "plain $_ stays" for 1 .. 3;
	# The first of a pod that is asked finds nothing in memory; the other may be told by it, or be its owner.
	is source($gatewayds{$_}[ $_ % 2 ], "red $_"), 'store', "red $_ is gone from pod $_" for 1 .. 3;
	warm();
	purge('X-Purge-All' => 'true');
	my $left = 0;
	for my $gatewayd (@all) {
		for my $family (@{ $gatewayd->rpc->call('metrics')->[0] }) {
			$left += $_->[1] for $family->[0] eq 'gatewayd_cache_objects' ? @{ $family->[5] } : ();
		}
	}
	is $left, 0, 'nothing is left in any memory';
};

subtest 'A and AAAA, however many' => sub {
	$addresses{2} = [ NET . '.12', 'fd77::12' ];
	dns();
	my $r = purge(target => '/v1/models');
	is $r->{status}, 200, 'purged';
	is scalar(grep { $_->{pod} eq '[fd77::12]:8100' } @{ $r->{json}{results} }), 1, 'over IPv6 too';
	# More than fits into one datagram; nobody listens there.
	$addresses{many} = [ map { "127.0.1.$_" } 1 .. 200 ];
	dns();
	$r = purge(target => '/v1/models');
	is "$r->{status} $r->{json}{total} $r->{json}{failed}", '502 204 200', 'an answer of DNS that needs TCP';
	is pending(), 200, 'all of those are told again';
	$addresses{2} = [ NET . '.12' ];
	delete $addresses{many};
	dns();
	wait_for { pending() == 0 } 'those that left DNS to be forgotten';
	is ended('left'), 200, 'counted';
};

subtest 'a pod that is cut off' => sub {
	my $best = 99;
	for my $try (1 .. 5) {
		warm();
		cut(2);
		my $r = purge('Surrogate-Key' => 'red');
		is $r->{status}, 502, 'reported';
		is join(' ', failed($r)), NET . '.12:8100', 'which one';
		is pending(), 1, 'and pending';
		is sources('red 1', @{ $gatewayds{2} }), 'memory memory', 'it still has what the others have not';
		my $back = time;
		mend(2);
		wait_for { pending() == 0 } 'delivery';
		my $took = time - $back;
		$best = $took if $took < $best;
		is source($gatewayds{2}[0], 'red 1'), 'store', 'purged';
		last if $best < 1;
	}
	diag sprintf 'purged %.0f ms after it came back', $best * 1000;
	cmp_ok $best, '<', 1, 'within a second of coming back';
};

subtest 'the broadcaster is killed meanwhile' => sub {
	warm();
	cut(2);
	purge('Surrogate-Key' => 'red');
	purge(target => '/v1/embeddings');
	is pending(), 2, 'pending';
	$broadcaster->kill9;
	$broadcaster->start;
	is pending(), 2, 'still pending';
	mend(2);
	wait_for { pending() == 0 } 'delivery';
	is ended('delivered'), 2, 'by the next process';
	unlike sources('red 2', @{ $gatewayds{2} }), qr/memory memory/, 'purged';
};

subtest 'a pod that leaves DNS is forgotten' => sub {
	cut(3);
	is purge('X-Purge-All' => 'true')->{status}, 502, 'reported';
	is pending(), 1, 'pending';
	my $addresses = delete $addresses{3};
	dns();
	is purge('X-Purge-All' => 'true')->{json}{total}, 2, 'not purged any more';
	wait_for { pending() == 0 } 'it to be forgotten';
	is ended('left'), 1, 'as one that left';
	$addresses{3} = $addresses;
	mend(3);
	dns();
	wait_for { purge('X-Purge-All' => 'true')->{status} == 200 } 'it to be back';
};

subtest 'no answer of DNS, and none' => sub {
	my %all = %addresses;
	%addresses = ();
	dns();
	my $r = purge('X-Purge-All' => 'true');
	is "$r->{status} $r->{body}", qq(502 {"error":"no pods found for service"}\n), 'nobody';
	$dns->signal('STOP');
	$r = purge('X-Purge-All' => 'true');
	is "$r->{status} $r->{body}", qq(502 {"error":"service discovery failed"}\n), 'no answer';
	$dns->signal('CONT');
	%addresses = %all;
	dns();
	wait_for { purge('X-Purge-All' => 'true')->{status} == 200 } 'DNS to be back';
	pass 'and back';
};

subtest 'a purge of the store is seen by a pod that starts later' => sub {
	warm();
	purge('X-Purge-All' => 'true');
	is source($all[0], 'plain 1'), 'store', 'in the store';
	$_->stop for @{ $gatewayds{3} };
	cut(3);
	my $r = purge('X-Purge-All' => 'true', 'X-Purge-Store' => 'true');
	is join(' ', failed($r)), NET . '.13:8100', 'one pod is away';
	$_->start for @{ $gatewayds{3} };
	is source($gatewayds{3}[0], "plain $_"), 'bought', "plain $_ is not found in the store by the pod that starts" for 2, 3;
	mend(3);
	wait_for { pending() == 0 } 'delivery';
};

$_->stop for @all, $broadcaster;
unlike $_->log, qr/\Q$token\E/, 'the token is not in the log of ' . $_->name for @all, $broadcaster, $dns;

done_testing;
