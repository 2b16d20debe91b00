#!/usr/bin/env perl

# A name server that answers by halves: addresses of one kind are not all of them as long as nobody says that there are none of
# the other. (Whole answers, by a real server: tests/pod/70-purge-pods.t.)

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;

plan skip_all => 'network namespaces need root' if $> != 0;
$ENV{PATH} .= ':/usr/sbin:/sbin';
plan skip_all => 'network namespaces are not allowed here' if system('unshare -n -m true 2>/dev/null') != 0;

use constant { SERVICE => 'gateway-headless.test', SERVER => '127.0.0.53' };

my $host = process('host', [ 'unshare', '-n', '--', 'sleep', 'infinity' ], exit => qr/^15$/);
my $namespace = '/proc/' . $host->pid . '/ns/net';
wait_for { readlink($namespace) && readlink($namespace) ne readlink('/proc/self/ns/net') } 'the namespace';
sub inside { return ('nsenter', "--net=$namespace", '--', @_) }
system(inside('ip', 'link', 'set', 'lo', 'up')) == 0 or die 'ip';

# "A 127.0.0.1 127.0.0.2", "AAAA SERVFAIL", "A NXDOMAIN"; a kind without a line has no addresses.
my $zone = test_path('zone');
sub zone
{
	my @lines = @_;
	spew("$zone.new", join '', map { "$_\n" } @lines);
	return rename "$zone.new", $zone;
}
zone();
my $dns = process('fake_dns', [ inside($^X, eg_root() . '/tests/lib/fake_dns', SERVER, $zone) ], ready => qr/ready/, exit => qr/^15$/);
my $resolv = spew(test_path('resolv.conf'), 'nameserver ' . SERVER . "\n");
my $listen = test_path('http.sock');
my $d = process('broadcasterd', [ inside('unshare', '-m', '--', 'sh', '-c', 'mount --bind "$0" /etc/resolv.conf && exec "$@"', $resolv,
	eg_bin('broadcasterd')) ], ready => 'rpc', rpc => 'broadcasterd.sock', sockets => [ [ 'http', listen_unix($listen) ] ],
	env => { TARGET_SERVICE => SERVICE, TARGET_PORT => 9, BROADCASTERD_JOURNAL => 'none', BROADCASTERD_RESOLVE_TIMEOUT => '300ms' });

# Whom a purge was sent to (nobody listens there), or why it was not.
sub told
{
	my $r = http('PURGE', "unix:$listen:/x");
	my $json = json_decode($r->{body});
	return $json->{error} // join ' ', map { $_->{pod} } @{ $json->{results} };
}
sub metric { return http('GET', "unix:$listen:/metrics")->{body} =~ /^\Q$_[0]\E (\S+)$/m ? $1 : 0 }
sub pending { return metric('broadcaster_redeliveries_pending') }

my $nobody = 'no pods found for service';
my $failed = 'service discovery failed';
for (
	[ [ 'A 127.0.0.1 127.0.0.2', 'AAAA ::1' ], '127.0.0.1:9 127.0.0.2:9 [::1]:9', 'both kinds' ],
	[ [ 'A 127.0.0.1' ], '127.0.0.1:9', 'no AAAA' ],
	[ [ 'AAAA ::1' ], '[::1]:9', 'no A' ],
	[ [ 'A NXDOMAIN', 'AAAA ::1' ], '[::1]:9', 'no such name, for A only' ],
	[ [], $nobody, 'neither' ],
	[ [ 'A NXDOMAIN', 'AAAA NXDOMAIN' ], $nobody, 'no such name' ],
	[ [ 'A SERVFAIL', 'AAAA SERVFAIL' ], $failed, 'failure' ],
	[ [ 'A SERVFAIL' ], $failed, 'no AAAA, but who knows about A' ],
	[ [ 'A REFUSED' ], $failed, 'the same, refused' ],
	[ [ 'AAAA SERVFAIL' ], $failed, 'no A, but who knows about AAAA' ],
	[ [ 'A SERVFAIL', 'AAAA NXDOMAIN' ], $failed, 'no such name, or a failure' ],
	[ [ 'A SERVFAIL', 'AAAA ::1' ], $failed, 'AAAA are not all' ],
	[ [ 'A 127.0.0.1', 'AAAA SERVFAIL' ], $failed, 'A are not all' ],
	[ [ 'A 127.0.0.1', 'AAAA SILENT' ], $failed, 'A are not all as long as nobody speaks of AAAA' ],
	[ [ 'A 127.0.0.1', 'AAAA ::1' ], '127.0.0.1:9 [::1]:9', 'and well again' ]) {
	my ($lines, $wanted, $what) = @$_;
	zone(@$lines);
	is told(), $wanted, $what;
}

subtest 'a target has not left because half of the answer is missing' => sub {
	zone('A 127.0.0.7');
	is told(), '127.0.0.7:9', 'purged';
	wait_for { pending() == 1 } 'those that have left to be forgotten';
	zone('A SERVFAIL');
	my $n = metric('broadcaster_discoveries_total{result="failed"}');
	wait_for { metric('broadcaster_discoveries_total{result="failed"}') >= $n + 3 || !pending() } 'three searches';
	is pending(), 1, 'still pending';
	zone();
	wait_for { pending() == 0 } 'it to have left';
	pass 'then it has left';
};

done_testing;
