#!/usr/bin/env perl

# All requests of one RPC peer together: what they make gatewayd hold is bounded, whatever the peer
# does, everything is served in its turn, and another peer is served as before.

use FindBin;
use lib "$FindBin::Bin/../lib";
use EG::Test;
use Digest::SHA qw(sha256_hex);

my $MEASURED = !instrumented();
my $BODY = 2 << 20;
my $d = daemon('gatewayd', http => 1, rpc => 'gatewayd.0.sock',
	env => { PROVIDER => 'mock', STORE => 'none', CACHE_SIZE => '16MiB', MAX_BODY => $BODY });

sub uss_kb
{
	my ($kb, $text) = (0, slurp('/proc/' . $d->pid . '/smaps_rollup'));
	$kb += $1 while $text =~ /^Private_(?:Clean|Dirty):\s+(\d+) kB/mg;
	return $kb;
}

# 'client' is what the log would say of the client, of any length.
sub params
{
	my ($bytes, %o) = @_;
	return [ 'POST', '/v1/embeddings', [ [ 'host', 'x' ], [ 'content-type', 'application/json' ], [ 'authorization', 'Bearer sk-x' ] ],
		mp_bin($o{inline} // ''), $o{hash} // '', $o{client} // 'test', '', $o{inline} ? JSON::PP::false() : JSON::PP::true(), $bytes ];
}

sub good
{
	my $body = json_encode({ model => 'text-embedding-3-small', dimensions => 8, input => "well-behaved $_[0]" });
	return $d->rpc->call('request', params(length $body, inline => $body, hash => sha256_hex($body)))->[0];
}
is good(0), 200, 'somebody else';

# A text without a word, which the mock has done at once.
sub large { my ($i) = @_; my $b = qq({"model":"text-embedding-3-small","dimensions":8,"input":"$i ); return $b . '.' x ($BODY - length($b) - 2) . '"}' }

subtest 'bodies wait for their turn' => sub {
	my ($n, $at_once) = (24, 4);
	my $rpc = $d->rpc;
	my $before = uss_kb();
	my (%sent, %credit, %status, $most);
	$rpc->send_message(0, $_, 'request', params($BODY)) for 1 .. $n;
	my $look = sub { my $more = uss_kb() - $before; $most = $more if !defined $most || $most < $more };
	my $take = sub {
		my ($m) = @_;
		die "cut off\n" if !$m;
		$credit{ $m->[2][0] } += $m->[2][1] if $m->[0] == 2 && $m->[1] eq 'credit';
		return if $m->[0] != 1;
		$status{ $m->[1] } = defined $m->[2] ? "error $m->[2][1]" : $m->[3][0];
		delete $credit{ $m->[1] };
	};
	# All that it lets us send but the last byte of each: nothing is answered.
	my $send = sub {
		my ($id, $keep) = @_;
		my $body = $sent{$id}{body} //= large($id);
		my $at = $sent{$id}{at} // 0;
		my $len = $credit{$id} < length($body) - $keep - $at ? $credit{$id} : length($body) - $keep - $at;
		return if $len <= 0;
		for my $from (map { $_ * 65536 } 0 .. ($len - 1) / 65536) {
			my $piece = $len - $from < 65536 ? $len - $from : 65536;
			$rpc->notify('chunk', [ $id + 0, mp_bin(substr $body, $at + $from, $piece),
				$at + $from + $piece == length $body ? JSON::PP::true() : JSON::PP::false() ]);
		}
		$sent{$id}{at} = $at + $len;
		$credit{$id} -= $len;
	};
	$take->($rpc->message) while keys %credit < $at_once;
	while (grep { ($sent{$_}{at} // 0) < $BODY - 1 } keys %credit) {
		$send->($_, 1) for keys %credit;
		$take->($rpc->message) if grep { ($sent{$_}{at} // 0) < $BODY - 1 } keys %credit;
		$look->();
	}
	is good(1), 200, 'somebody else is served';
	is keys %credit, $at_once, "so many may send their bodies: $at_once";
	is keys %status, 0, 'nobody is refused';
	# The last bytes: those are answered, and others have their turn.
	while (keys %status < $n) {
		$send->($_, 0) for keys %credit;
		$take->($rpc->message);
		$look->();
		cmp_ok keys %credit, '<=', $at_once, 'more than may be at once' if keys %credit > $at_once;
	}
	is_deeply \%status, { map { $_ => 200 } 1 .. $n }, 'all are served';
	cmp_ok $most, '<', ($at_once * $BODY + (12 << 20)) / 1024, "$most kB more" if $MEASURED;
	# One that goes in the middle makes room too.
	my $other = $d->rpc;
	$other->send_message(0, $_, 'request', params($BODY)) for 1 .. 6;
	my @first = map { $other->message->[2][0] } 1 .. $at_once;
	is "@first", '1 2 3 4', 'four others';
	$other->notify('cancel', [2]);
	is $other->message->[2][0], 5, 'the fifth, when the second is cancelled';
	$_->close for $rpc, $other;
};

subtest 'requests that wait' => sub {
	my ($rpc, $before) = ($d->rpc, uss_kb());
	my ($n, %code) = (100);
	# Each is held with its parameters until its body comes, which never happens.
	$rpc->send_message(0, $_, 'request', params($BODY, client => 'x' x 1_000_000)) for 1 .. $n;
	$rpc->send_message(0, $n + 1, 'ping', []);
	while (my $m = $rpc->message) {
		next if $m->[0] != 1;
		last if $m->[1] == $n + 1;
		$code{ $m->[2][0] }++;
	}
	is join(' ', map { "$_: $code{$_}" } keys %code), '3: 33', 'those beyond 64 MiB are told that it is busy';
	my $more = uss_kb() - $before;
	cmp_ok $more, '<', 80 << 10, "$more kB more" if $MEASURED;
	is good(2), 200, 'somebody else is served';
	$rpc->close;
	wait_for { uss_kb() - $before < 24 << 10 } 'the memory to be given back' if $MEASURED;
};

subtest 'answers that are not taken' => sub {
	my ($rpc, $before, $most) = ($d->rpc, uss_kb(), 0);
	my $n = 48;
	my @bodies = map { my $i = $_; json_encode({ model => 'text-embedding-3-large', input => [ map { "$i $_" } 1 .. 64 ] }) } 1 .. $n;
	# It reads what comes, and gives no credit for more.
	my ($status, $cancelled, $bytes) = (0, 0, 0);
	for my $id (1 .. $n) {
		my $body = $bodies[ $id - 1 ];
		$rpc->send_message(0, $id, 'request', params(length $body, inline => $body, hash => sha256_hex($body)));
		while (my $m = $rpc->message) {
			$cancelled++ if $m->[0] == 2 && $m->[1] eq 'cancel';
			$bytes += length $m->[2][1] if $m->[0] == 2 && $m->[1] eq 'chunk';
			last if $m->[0] == 1 && $m->[1] == $id;
		}
		my $more = uss_kb() - $before;
		$most = $more if $most < $more;
	}
	ok wait_for { http('GET', $d->url . '/metrics')->{body} =~ /^gatewayd_slow_answers_reset_total (\d+)$/m && $1 > 0 } 'the oldest to be given up';
	cmp_ok $most, '<', 190 << 10, "$most kB more" if $MEASURED;
	is good(3), 200, 'somebody else is served';
	$rpc->close;
};

done_testing;
